// Items by number, made one by one and forgotten all at once; their memory is used again.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace cuda_emulator {

template <typename Item>
class Pool {
 public:
  uint32_t take() {
    if (!free_.empty()) {
      const uint32_t at = free_.back();
      free_.pop_back();
      (*this)[at] = Item{};
      return at;
    }
    if (used_ == chunks_.size() * kChunk) chunks_.push_back(std::make_unique<Item[]>(kChunk));
    (*this)[used_] = Item{};
    return used_++;
  }
  void give_back(uint32_t at) { free_.push_back(at); }
  Item& operator[](uint32_t at) { return chunks_[at / kChunk][at % kChunk]; }
  void clear() {
    used_ = 0;
    free_.clear();
  }

 private:
  static constexpr uint32_t kChunk = 256;
  std::vector<std::unique_ptr<Item[]>> chunks_;
  std::vector<uint32_t> free_;
  uint32_t used_ = 0;
};

}  // namespace cuda_emulator
