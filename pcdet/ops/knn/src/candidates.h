// The k smallest of a stream of (value, row) pairs, kept as a buffer that is cut back when it is full.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "ordered.h"
#include "simd_kernels.h"

namespace pcdet::cpu {

// The smallest limit found that k to k + tolerance of the values do not exceed (more only if they are equal). Bisection
// over the numbers a value can take: counting is cheaper than moving, and random data does not slow it down.
template <typename T>
T limit_of(const T* values, int64_t count, int64_t k, int64_t tolerance) {
  const auto [least, greatest] = ordered_range(values, count);
  int64_t low = int64_t(least) - 1, high = greatest;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    const T limit = Ordered<T>::back(static_cast<typename Ordered<T>::Int>(middle));
    const int64_t within = count_at_most(values, count, limit);
    (within < k ? low : high) = middle;
    if (within >= k && within <= k + tolerance) break;
  }
  return Ordered<T>::back(static_cast<typename Ordered<T>::Int>(high));
}

// Values decide by themselves.
struct NoSlack {
  template <typename T>
  T operator()(T value) const {
    return value;
  }
};

// Slack: the k-th smallest value -> the greatest value whose row may still be wanted.
template <typename T, typename Slack = NoSlack>
class Candidates {
 public:
  static constexpr int64_t kBurst = 1024;  // pairs that may be written at once

  // `bound` is known not to be too low. `spare` is the room beyond k: a small one tightens the bound early, a large one
  // cuts back rarely.
  void start(int64_t k, int64_t spare, T bound = std::numeric_limits<T>::max(), Slack slack = {}) {
    k_ = k;
    count_ = 0;
    bound_ = bound;
    guess_ = std::numeric_limits<T>::max();
    slack_ = slack;
    make_room(k + spare);
  }

  // Guesses the k-th smallest value, before anything is pushed.
  void guess(T value) {
    guess_ = slack_(value);
    bound_ = std::min(bound_, guess_);
  }

  // Greater values are not wanted.
  T bound() const { return bound_; }

  void push(T value, int32_t row) {
    values_[count_] = value;
    rows_[count_] = row;
    pushed(1);
  }

  // For callers that write pairs themselves: where, up to kBurst of them, and that it is done.
  T* next_values() { return values_.data() + count_; }
  int32_t* next_rows() { return rows_.data() + count_; }
  void pushed(int64_t count) {
    count_ += count;
    if (count_ >= room_) cut_back(std::max<int64_t>(8, k_ / 8));
  }

  // Drops what is not wanted. False if the guess was too low to have all that is: then bound() is safe.
  bool finish() {
    const T safe = count_ >= k_ ? cut_back(0) : std::numeric_limits<T>::max();
    if (safe <= guess_) return true;
    bound_ = safe;
    return false;
  }

  // In no order.
  int64_t count() const { return count_; }
  const T* values() const { return values_.data(); }
  const int32_t* rows() const { return rows_.data(); }

 private:
  void make_room(int64_t room) {
    room_ = room;
    if (static_cast<int64_t>(values_.size()) < room + kBurst) {
      values_.resize(room + kBurst);
      rows_.resize(room + kBurst);
    }
  }

  // Returns a bound that is not too low.
  T cut_back(int64_t tolerance) {
    const T safe = slack_(limit_of(values_.data(), count_, k_, tolerance));
    bound_ = std::min(bound_, safe);
    int64_t kept = 0;
    for (int64_t i = 0; i < count_; ++i) {
      const T value = values_[i];
      values_[kept] = value;
      rows_[kept] = rows_[i];
      kept += value <= bound_;
    }
    count_ = kept;
    // Many near ties: more room, so that the work stays proportional to the number of candidates.
    if (2 * (count_ - k_) > room_ - k_) make_room(k_ + 4 * (count_ - k_));
    return safe;
  }

  std::vector<T> values_;
  std::vector<int32_t> rows_;
  int64_t k_ = 0, count_ = 0, room_ = 0;
  T bound_ = 0, guess_ = 0;
  Slack slack_;
};

}  // namespace pcdet::cpu
