#include "arena.h"

#include <cuda_emulator/memory.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <stdexcept>

#include "../limits.h"
#include "../shared_memory.h"
#include "map_memory.h"

namespace cuda_emulator {
namespace arena {
namespace {

constexpr size_t kRedZone = 256, kAlignment = 64;
// A freed block waits until so many of its size were freed after it: a pointer that outlived its tensor is then
// noticed.
constexpr size_t kQuarantine = 16;

struct Arena {
  char* const base = map_memory<char>(kBytes);
  uint8_t* const unwritten = map_memory<uint8_t>(kBytes);
  std::mutex mutex;
  char* next = base + kSharedZone + kRedZone;
  char* next_shared = base + kRedZone;
  std::map<const char*, size_t> live;                       // sizes by beginning
  std::map<size_t, std::deque<char*>> free_blocks;          // by room
  const char *found_begin = nullptr, *found_end = nullptr;  // the block that was found last
};

Arena& arena() {
  static auto* const one = new Arena;  // never destroyed: tensors may outlive it
  return *one;
}

// Few different sizes, so that freed memory is used again: a quarter more at each step.
size_t room_for(size_t bytes) {
  size_t room = 256;
  while (room < bytes) room += room / 4 / kAlignment * kAlignment;
  return room + kRedZone;
}

char* take(size_t bytes) {
  Arena& a = arena();
  const std::lock_guard lock(a.mutex);
  const size_t room = room_for(bytes);
  auto& spare = a.free_blocks[room];
  char* at = a.next;
  if (spare.size() > kQuarantine) {
    at = spare.front();
    spare.pop_front();
  } else if (a.next + room > a.base + kBytes) {
    throw std::runtime_error("cuda_emulator: out of memory: the watched arena has " + std::to_string(kBytes) +
                             " bytes");
  } else {
    a.next += room;
  }
  a.live[at] = bytes;
  return at;
}

// The live block that begins at or before the address, or the end.
std::map<const char*, size_t>::iterator block_before(const char* at) {
  auto next = arena().live.upper_bound(at);
  return next == arena().live.begin() ? arena().live.end() : --next;
}

std::string describe_device(const char* at) {
  Arena& a = arena();
  const std::lock_guard lock(a.mutex);
  const auto block = block_before(at);
  if (block == a.live.end()) return "no block of device memory";
  const auto from_begin = static_cast<size_t>(at - block->first);
  const std::string of = "a block of " + std::to_string(block->second) + " bytes";
  if (from_begin < block->second) return "byte " + std::to_string(from_begin) + " of " + of;
  const auto next = std::next(block);
  if (next != a.live.end() && static_cast<size_t>(next->first - at) < from_begin - block->second)
    return std::to_string(next->first - at) + " bytes before a block of " + std::to_string(next->second) + " bytes";
  return std::to_string(from_begin - block->second) + " bytes after " + of;
}

}  // namespace

bool holds(const void* at) {
  const char* base = arena().base;
  return at >= base && at < base + kBytes;
}

bool is_shared(const void* at) { return offset_of(at) < kSharedZone; }

size_t offset_of(const void* at) { return static_cast<size_t>(static_cast<const char*>(at) - arena().base); }

bool is_live(const void* address, size_t size) {
  if (is_shared(address)) return shared_variable_at(address, size) != nullptr;
  const auto* at = static_cast<const char*>(address);
  Arena& a = arena();
  if (at >= a.found_begin && at + size <= a.found_end) return true;
  const std::lock_guard lock(a.mutex);
  const auto block = block_before(at);
  if (block == a.live.end() || at + size > block->first + block->second) return false;
  a.found_begin = block->first;
  a.found_end = block->first + block->second;
  return true;
}

bool has_unwritten(const void* at, size_t size) {
  const uint8_t* notes = arena().unwritten + offset_of(at);
  for (size_t i = 0; i < size; ++i)
    if (notes[i]) return true;
  return false;
}

void set_unwritten(const void* at, size_t size, bool unwritten) {
  std::memset(arena().unwritten + offset_of(at), unwritten, size);
}

std::string describe(const void* at) {
  if (!is_shared(at)) return describe_device(static_cast<const char*>(at));
  if (const SharedVariable* v = shared_variable_at(at, 1))
    return std::string("shared variable ") + v->name + ", byte " +
           std::to_string(static_cast<const char*>(at) - v->begin);
  return "shared memory outside of every variable";
}

}  // namespace arena

void* allocate(size_t bytes) {
  if (bytes == 0) return nullptr;
  char* at = arena::take(bytes);
  std::memset(at, kUnwritten, bytes);
  arena::set_unwritten(at, bytes, true);
  return at;
}

void release(void* begin) {
  if (!begin) return;
  arena::Arena& a = arena::arena();
  const std::lock_guard lock(a.mutex);
  const auto block = a.live.find(static_cast<const char*>(begin));
  if (block == a.live.end())
    throw std::runtime_error("cuda_emulator: an address is released that is no live device memory");
  a.free_blocks[arena::room_for(block->second)].push_back(static_cast<char*>(begin));
  a.live.erase(block);
  a.found_begin = a.found_end = nullptr;
}

void host_wrote(const void* begin, size_t bytes) {
  if (bytes > 0 && arena::holds(begin)) arena::set_unwritten(begin, bytes, false);
}

bool is_device_memory(const void* address) {
  return arena::holds(address) && !arena::is_shared(address) && arena::is_live(address, 1);
}

char* take_shared_room(size_t size) {
  arena::Arena& a = arena::arena();
  char* at = a.next_shared;
  a.next_shared += (size + arena::kAlignment - 1) / arena::kAlignment * arena::kAlignment + arena::kRedZone;
  if (a.next_shared > a.base + arena::kSharedZone)
    throw std::runtime_error("cuda_emulator: shared memory beyond the watched zone");
  return at;
}

void drop_shared_room() { arena::arena().next_shared = arena::arena().base + arena::kRedZone; }

}  // namespace cuda_emulator
