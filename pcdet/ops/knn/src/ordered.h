// Numbers as integers of the same order.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

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

template <>
struct Ordered<int32_t> {
  using Int = int32_t;
  static Int from(int32_t value) { return value; }
  static int32_t back(Int number) { return number; }
};

}  // namespace pcdet::cpu
