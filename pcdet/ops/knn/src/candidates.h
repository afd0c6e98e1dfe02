// The k smallest of a stream of (value, row) pairs, kept as a buffer that is cut back when it is full.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

namespace pcdet::cpu {

// A floating-point number as an integer of the same order, and back. Not for NaN.
template <typename T>
struct Ordered {
  using Int = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  static constexpr Int kAllButSign = std::numeric_limits<Int>::max();
  static Int from(T value) { return flip(std::bit_cast<Int>(value)); }
  static T back(Int number) { return std::bit_cast<T>(flip(number)); }

 private:
  static Int flip(Int bits) { return bits ^ ((bits >> (8 * sizeof(T) - 1)) & kAllButSign); }
};

// Loops over a buffer, defined in knn.cpp for the widest vectors there are: how many values a limit admits, and the
// least and the greatest (as Ordered integers, whose comparison the compiler can vectorise).
int64_t count_at_most(const float* values, int64_t count, float limit);
int64_t count_at_most(const double* values, int64_t count, double limit);
std::pair<int32_t, int32_t> ordered_range(const float* values, int64_t count);
std::pair<int64_t, int64_t> ordered_range(const double* values, int64_t count);

template <typename T>
class Candidates {
 public:
  static constexpr int64_t kBurst = 16;  // rows that may be pushed at once

  // Keeps everything within `margin` of the k-th smallest value. `spare` is the room beyond k: a small one tightens the
  // bound early, a large one cuts back rarely.
  void start(int64_t k, int64_t spare, T margin) {
    k_ = k;
    margin_ = margin;
    count_ = 0;
    bound_ = std::numeric_limits<T>::max();  // not infinity: padding rows are infinitely far and stay out
    make_room(k + spare);
  }

  // Lets nothing in.
  void close() { bound_ = std::numeric_limits<T>::lowest(); }

  // Values above it cannot be among the k smallest.
  T bound() const { return bound_; }

  void push(T value, int32_t row) {
    values_[count_] = value;
    rows_[count_] = row;
    pushed(1);
  }

  // For callers that write up to kBurst pairs at once: where, and that it is done.
  T* next_values() { return values_.data() + count_; }
  int32_t* next_rows() { return rows_.data() + count_; }
  void pushed(int64_t count) {
    count_ += count;
    if (count_ >= room_) cut_back(std::max<int64_t>(8, k_ / 8));
  }

  // The number of candidates that may be among the k smallest, in no order: `values` and `rows`.
  int64_t finish() {
    if (count_ > k_) cut_back(0);
    return count_;
  }
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

  // The smallest limit found that k to k + tolerance values do not exceed (more only if they are equal). Bisection over
  // the numbers a value can take: counting is cheaper than moving, and random data does not slow it down.
  T limit_of(int64_t tolerance) const {
    const auto [least, greatest] = ordered_range(values_.data(), count_);
    int64_t low = int64_t(least) - 1, high = greatest;
    while (high - low > 1) {
      const int64_t middle = low + (high - low) / 2;
      const T limit = Ordered<T>::back(static_cast<typename Ordered<T>::Int>(middle));
      const int64_t within = count_at_most(values_.data(), count_, limit);
      (within < k_ ? low : high) = middle;
      if (within >= k_ && within <= k_ + tolerance) break;
    }
    return Ordered<T>::back(static_cast<typename Ordered<T>::Int>(high));
  }

  void cut_back(int64_t tolerance) {
    const T limit = limit_of(tolerance);
    const T bound = margin_ > T(0) ? std::nextafter(limit + margin_, std::numeric_limits<T>::max()) : limit;
    bound_ = std::min(bound_, bound);
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
  }

  std::vector<T> values_;
  std::vector<int32_t> rows_;
  int64_t k_ = 0, count_ = 0, room_ = 0;
  T margin_ = 0, bound_ = 0;
};

}  // namespace pcdet::cpu
