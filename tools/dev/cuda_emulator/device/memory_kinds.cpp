// Allocators: device memory comes from the emulator, pinned memory from the C library.
#include "memory_kinds.h"

#include <cuda_emulator/memory.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>

namespace emulated_device {
namespace {

struct DeviceAllocator final : c10::Allocator {
  explicit DeviceAllocator(c10::Device device) : device_(device) {}

  c10::DataPtr allocate(size_t bytes) override {
    void* const begin = bytes == 0 ? nullptr : cuda_emulator::allocate(bytes);
    return {begin, begin, &release, device_};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
    cuda_emulator::host_wrote(to, bytes);
  }

 private:
  static void release(void* begin) {
    if (begin != nullptr) cuda_emulator::release(begin);
  }
  const c10::Device device_;
};

// Begin and size of every pinned block in use. Never destroyed: tensors may outlive static objects.
struct PinnedBlocks {
  std::mutex mutex;
  std::map<const char*, size_t> blocks;
};

PinnedBlocks& pinned_blocks() {
  static auto* const blocks = new PinnedBlocks;
  return *blocks;
}

struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) return {nullptr, c10::Device(c10::kCPU)};
    void* const begin = std::malloc(bytes);
    if (begin == nullptr) throw std::bad_alloc();
    const std::lock_guard lock(pinned_blocks().mutex);
    pinned_blocks().blocks.emplace(static_cast<const char*>(begin), bytes);
    return {begin, begin, &release, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }

 private:
  static void release(void* begin) {
    if (begin == nullptr) return;
    {
      const std::lock_guard lock(pinned_blocks().mutex);
      pinned_blocks().blocks.erase(static_cast<const char*>(begin));
    }
    std::free(begin);
  }
};

}  // namespace

c10::Allocator* device_allocator() {
  static auto* const allocator = new DeviceAllocator(c10::Device(c10::kPrivateUse1, 0));
  return allocator;
}

c10::Allocator* aliased_allocator() {
  static auto* const allocator = new DeviceAllocator(c10::Device(c10::kCPU));
  return allocator;
}

c10::Allocator* pinned_allocator() {
  static auto* const allocator = new PinnedAllocator;
  return allocator;
}

bool is_pinned(const void* address) {
  const auto* const place = static_cast<const char*>(address);
  const std::lock_guard lock(pinned_blocks().mutex);
  auto after = pinned_blocks().blocks.upper_bound(place);
  if (after == pinned_blocks().blocks.begin()) return false;
  const auto& [begin, bytes] = *--after;
  return place < begin + bytes;
}

namespace {
const c10::AllocatorRegisterer<c10::kPrivateUse1> registered_allocator(device_allocator());
}

}  // namespace emulated_device
