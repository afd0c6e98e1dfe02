// Memory for an op whose result is large and short-lived. A fresh block of some MB costs more in page faults than it
// takes to fill it; the C library may hand a freed one back to the system every time. Here one is kept. CPU only.
#pragma once

#include <c10/core/Allocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <pcdet/backend.h>

#include <atomic>
#include <cstring>

namespace pcdet::PCDET_BACKEND {

class SpareBlockAllocator final : public c10::Allocator {
 public:
  // Never destroyed: a tensor may outlive every static object.
  static SpareBlockAllocator* get() {
    static auto* instance = new SpareBlockAllocator;
    return instance;
  }

  at::DataPtr allocate(size_t bytes) override {
    Block* block = spare_.exchange(nullptr);
    if (block != nullptr && block->capacity < bytes) {
      release(block);
      block = nullptr;
    }
    if (block == nullptr) {
      const size_t capacity = bytes + bytes / 4;  // for a next result that is a little larger; untouched until then
      block = static_cast<Block*>(c10::alloc_cpu(sizeof(Block) + capacity));
      block->capacity = capacity;
    }
    return {block + 1, block, &give_back, at::Device(at::kCPU)};
  }
  at::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* dest, const void* src, size_t bytes) const override { std::memcpy(dest, src, bytes); }

 private:
  struct alignas(64) Block {  // the header; the data follow
    size_t capacity;
  };
  static constexpr size_t kMostKept = size_t(32) << 20;

  static void release(Block* block) { c10::free_cpu(block); }
  static void give_back(void* context) {
    auto* block = static_cast<Block*>(context);
    if (block->capacity <= kMostKept) block = get()->spare_.exchange(block);
    if (block != nullptr) release(block);
  }

  std::atomic<Block*> spare_{nullptr};
};

}  // namespace pcdet::PCDET_BACKEND
