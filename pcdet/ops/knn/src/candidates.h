// The k smallest of a stream of (distance, row) pairs, kept as one buffer that is cut back when it is full.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace pcdet::cpu {

// A distance and a row as one number in the order of (distance, row): comparing two costs one instruction.
template <typename T>
struct Key {
  using Type = std::pair<T, int32_t>;
  static Type make(T value, int32_t row) { return {value, row}; }
  static T value(const Type& key) { return key.first; }
  static int32_t row(const Type& key) { return key.second; }
};

template <>
struct Key<float> {
  using Type = int64_t;
  // The bits of a float as an integer of the same order, negative numbers included.
  static int32_t ordered(int32_t bits) { return bits ^ ((bits >> 31) & 0x7fffffff); }
  static Type make(float value, int32_t row) {
    return static_cast<int64_t>(ordered(std::bit_cast<int32_t>(value))) * (int64_t(1) << 32) + row;
  }
  static float value(Type key) { return std::bit_cast<float>(ordered(static_cast<int32_t>(key >> 32))); }
  static int32_t row(Type key) { return static_cast<int32_t>(key & 0xffffffff); }
};

// Moves the k smallest keys (all different) to the front, the k-th itself to [k - 1]. Quickselect whose inner loop has
// no branch to mispredict: keys of random data are what std::nth_element is slowest with.
inline void select_smallest(int64_t* keys, int64_t k, int64_t count) {
  constexpr int kMostRounds = 24;  // far beyond what random pivots need; then the library's guarantee
  constexpr int64_t kFew = 24;
  int64_t begin = 0, end = count;
  for (int round = 0; end - begin > kFew && round < kMostRounds; ++round) {
    const int64_t middle = begin + (end - begin) / 2;
    int64_t low = std::min(keys[begin], keys[middle]), high = std::max(keys[begin], keys[middle]);
    const int64_t pivot = std::max(low, std::min(high, keys[end - 1]));  // the median of three
    int64_t split = begin;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t key = keys[i];
      keys[i] = keys[split];
      keys[split] = key;
      split += key <= pivot;
    }
    if (split >= k)
      end = split;
    else
      begin = split;
    if (split == k) break;
  }
  std::nth_element(keys + begin, keys + (k - 1), keys + end);
}

template <typename K>
void select_smallest(K* keys, int64_t k, int64_t count) {
  std::nth_element(keys, keys + (k - 1), keys + count);
}

template <typename T>
class Candidates {
 public:
  using KeyType = typename Key<T>::Type;

  // Keeps everything within `margin` of the k-th smallest value. `spare` is the room beyond k: a small one tightens the
  // bound early, a large one cuts back rarely.
  void start(int64_t k, int64_t spare, T margin) {
    k_ = k;
    margin_ = margin;
    count_ = 0;
    bound_ = std::numeric_limits<T>::max();  // not infinity: padding rows are infinitely far and stay out
    if (static_cast<int64_t>(keys_.size()) < k + spare) keys_.resize(k + spare);
    room_ = k + spare;
  }

  // Lets nothing in.
  void close() { bound_ = std::numeric_limits<T>::lowest(); }

  // Values above it cannot be among the k smallest.
  T bound() const { return bound_; }

  void push(T value, int32_t row) {
    keys_[count_++] = Key<T>::make(value, row);
    if (count_ == room_) cut_back();
  }

  // All candidates that may be among the k smallest, in no order.
  std::pair<KeyType*, int64_t> finish() {
    if (count_ > k_) cut_back();
    return {keys_.data(), count_};
  }

 private:
  void cut_back() {
    const auto begin = keys_.begin(), end = begin + count_;
    select_smallest(keys_.data(), k_, count_);
    const T kth = Key<T>::value(keys_[k_ - 1]);
    bound_ = margin_ > T(0) ? std::min(bound_, std::nextafter(kth + margin_, std::numeric_limits<T>::max())) : kth;
    const T bound = bound_;
    count_ =
        margin_ > T(0)
            ? std::partition(begin + k_, end, [=](const KeyType& key) { return Key<T>::value(key) <= bound; }) - begin
            : k_;
    // Many near ties: more room, so that the work stays proportional to the number of candidates.
    if (2 * (count_ - k_) > room_ - k_) {
      room_ = k_ + 4 * (count_ - k_);
      if (static_cast<int64_t>(keys_.size()) < room_) keys_.resize(room_);
    }
  }

  std::vector<KeyType> keys_;
  int64_t k_ = 0, count_ = 0, room_ = 0;
  T margin_ = 0, bound_ = 0;
};

}  // namespace pcdet::cpu
