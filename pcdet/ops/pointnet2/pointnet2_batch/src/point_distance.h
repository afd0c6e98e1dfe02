// Squared distances and their order, the same on every device to the bit.
#pragma once

#include <pcdet/check.h>

#include <bit>
#include <type_traits>

namespace pcdet::PCDET_BACKEND {

template <typename T>
PCDET_HD T squared_norm(T dx, T dy, T dz) {
  return (unfused_product(dx, dx) + unfused_product(dy, dy)) + unfused_product(dz, dz);
}

// A distance as an integer of the same order: numbers that are not negative compare like their bits, and integer minima
// and maxima, unlike those of floats, are vectorised without giving up NaN and infinity everywhere.
template <typename T>
using DistanceBits = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;

template <typename T>
inline DistanceBits<T> ordered(T distance) {
  return std::bit_cast<DistanceBits<T>>(distance);
}

// Points are (B, N, 3) [x, y, z].
inline void check_point_sets(const char* name, const at::Tensor& points) {
  TORCH_CHECK_VALUE(points.dim() == 3 && points.size(2) == 3, name, " must have shape (B, N, 3) [x, y, z], got ",
                    points.sizes());
  check_float(name, points);
  TORCH_CHECK_VALUE(points.size(1) < std::numeric_limits<int32_t>::max(), name,
                    " must hold fewer than 2^31 points a frame, got ", points.size(1));
}

inline void check_two_point_sets(const char* a_name, const at::Tensor& a, const char* b_name, const at::Tensor& b) {
  check_point_sets(a_name, a);
  check_point_sets(b_name, b);
  check_same_kind(a_name, a, b_name, b);
  TORCH_CHECK_VALUE(a.size(0) == b.size(0), b_name, " must have as many frames as ", a_name, " (", a.size(0), "), got ",
                    b.size(0));
}

// Whoever asks for neighbours needs some points to search.
inline void check_has_points(const char* name, const at::Tensor& searched, const at::Tensor& asked) {
  TORCH_CHECK_VALUE(searched.size(1) > 0 || asked.numel() == 0, name, " must hold at least one point a frame, got ",
                    searched.sizes());
}

}  // namespace pcdet::PCDET_BACKEND
