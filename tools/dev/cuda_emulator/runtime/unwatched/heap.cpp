// Device and shared memory where nobody watches accesses: the C library's, whose borders AddressSanitizer knows.
#include <cuda_emulator/memory.h>
#include <cuda_emulator/runtime.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "../limits.h"
#include "../shared_memory.h"

namespace cuda_emulator {
namespace {

struct LiveBlocks {
  std::mutex mutex;
  std::map<const char*, size_t> sizes;  // by their beginning
};
LiveBlocks& live_blocks() {
  static auto* const one = new LiveBlocks;  // never destroyed: tensors may outlive it
  return *one;
}

std::vector<char*> shared_room;

char* aligned(size_t bytes) {
  void* at = nullptr;
  if (posix_memalign(&at, 64, bytes) != 0)
    throw std::runtime_error("cuda_emulator: out of memory: " + std::to_string(bytes) + " bytes were asked for");
  return static_cast<char*>(at);
}

}  // namespace

void* allocate(size_t bytes) {
  if (bytes == 0) return nullptr;
  char* at = aligned(bytes);
  std::memset(at, kUnwritten, bytes);
  LiveBlocks& live = live_blocks();
  const std::lock_guard lock(live.mutex);
  live.sizes[at] = bytes;
  return at;
}

void release(void* begin) {
  if (!begin) return;
  LiveBlocks& live = live_blocks();
  {
    const std::lock_guard lock(live.mutex);
    if (live.sizes.erase(static_cast<const char*>(begin)) == 0)
      throw std::runtime_error("cuda_emulator: an address is released that is no live device memory");
  }
  std::free(begin);
}

void host_wrote(const void*, size_t) {}

bool is_device_memory(const void* address) {
  const auto* at = static_cast<const char*>(address);
  LiveBlocks& live = live_blocks();
  const std::lock_guard lock(live.mutex);
  auto next = live.sizes.upper_bound(at);
  return next != live.sizes.begin() && at < (--next)->first + next->second;
}

void touch_atomically(void*, size_t, const void*) {}

char* take_shared_room(size_t size) {
  shared_room.push_back(aligned(size));
  return shared_room.back();
}

void drop_shared_room() {
  for (char* at : shared_room) std::free(at);
  shared_room.clear();
}

}  // namespace cuda_emulator
