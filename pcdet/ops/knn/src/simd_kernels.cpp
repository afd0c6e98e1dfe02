// Plain loops for PCDET_WIDE: the compiler vectorises each for the baseline, AVX2 and AVX-512. See simd_kernels.h for
// what each does, and knn.cpp for why scan.h does it otherwise.
#include "simd_kernels.h"

#include <pcdet/simd.h>

#include <algorithm>
#include <bit>

#include "ordered.h"

namespace pcdet::cpu {

template <typename T>
inline int64_t count_within(const T* values, int64_t count, T limit) {
  int64_t within = 0;
  for (int64_t i = 0; i < count; ++i) within += values[i] <= limit;
  return within;
}
PCDET_WIDE int64_t count_at_most(const int32_t* values, int64_t count, int32_t limit) {
  int32_t within = 0;  // a counter of the values' width: no lane is widened
  for (int64_t i = 0; i < count; ++i) within += values[i] <= limit;
  return within;
}
PCDET_WIDE int64_t count_at_most(const float* values, int64_t count, float limit) {
  return count_within(values, count, limit);
}
PCDET_WIDE int64_t count_at_most(const double* values, int64_t count, double limit) {
  return count_within(values, count, limit);
}

template <typename T>
inline auto range_of(const T* values, int64_t count) {
  auto least = Ordered<T>::from(values[0]), greatest = least;
  for (int64_t i = 1; i < count; ++i) {
    const auto number = Ordered<T>::from(values[i]);
    least = number < least ? number : least;
    greatest = number > greatest ? number : greatest;
  }
  return std::pair(least, greatest);
}
PCDET_WIDE std::pair<int32_t, int32_t> ordered_range(const int32_t* values, int64_t count) {
  return range_of(values, count);
}
PCDET_WIDE std::pair<int32_t, int32_t> ordered_range(const float* values, int64_t count) {
  return range_of(values, count);
}
PCDET_WIDE std::pair<int64_t, int64_t> ordered_range(const double* values, int64_t count) {
  return range_of(values, count);
}

template <typename T>
inline void distances_of_leaf(const T* x, const T* y, const T* z, const T* q, T* out) {
  for (int64_t j = 0; j < kLeaf; ++j) {
    const T dx = x[j] - q[0], dy = y[j] - q[1], dz = z[j] - q[2];
    out[j] = dx * dx + dy * dy + dz * dz;
  }
}
PCDET_WIDE void leaf_distances(const float* x, const float* y, const float* z, const float* q, float* out) {
  distances_of_leaf(x, y, z, q, out);
}
PCDET_WIDE void leaf_distances(const double* x, const double* y, const double* z, const double* q, double* out) {
  distances_of_leaf(x, y, z, q, out);
}

// The sum of lanes[0, N), N a power of two; always in the same order, whatever the vectors.
template <typename T, int64_t N>
inline T sum_of(T (&lanes)[N]) {
#pragma GCC unroll 8
  for (int64_t half = N / 2; half > 0; half /= 2)
#pragma GCC unroll 16
    for (int64_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  return lanes[0];
}

template <typename T>
inline T squared_distance(const T* a, const T* b, int64_t channels) {
  constexpr int64_t kLanes = 16;
  T lanes[kLanes] = {};
  int64_t c = 0;
  for (; c + kLanes <= channels; c += kLanes)
    for (int64_t l = 0; l < kLanes; ++l) {
      const T d = a[c + l] - b[c + l];
      lanes[l] += d * d;
    }
  T sum = 0;
  for (; c < channels; ++c) sum += (a[c] - b[c]) * (a[c] - b[c]);
  return sum + sum_of(lanes);
}

// The rows lie anywhere: the next ones are asked for early.
template <typename T>
inline void distances_to_rows(const T* query, const T* base, int64_t channels, const int32_t* rows, int64_t count,
                              T* out) {
  constexpr int64_t kAhead = 12, kLine = 64 / sizeof(T);
  for (int64_t i = 0; i < count; ++i) {
    const T* later = base + rows[std::min(i + kAhead, count - 1)] * channels;
    for (int64_t c = 0; c < channels; c += kLine) __builtin_prefetch(later + c);
    out[i] = squared_distance(query, base + rows[i] * channels, channels);
  }
}
PCDET_WIDE void distances_to(const float* query, const float* base, int64_t channels, const int32_t* rows,
                             int64_t count, float* out) {
  distances_to_rows(query, base, channels, rows, count, out);
}
PCDET_WIDE void distances_to(const double* query, const double* base, int64_t channels, const int32_t* rows,
                             int64_t count, double* out) {
  distances_to_rows(query, base, channels, rows, count, out);
}

PCDET_WIDE void places_of(const float* distances, const int32_t* rows, int64_t count, int32_t* places) {
  for (int64_t i = 0; i < count; i += kPlaces) {
    int32_t before[kPlaces] = {};
    for (int64_t j = 0; j < count; ++j)
      for (int64_t l = 0; l < kPlaces; ++l)
        before[l] += (distances[j] < distances[i + l]) | ((distances[j] == distances[i + l]) & (rows[j] < rows[i + l]));
    for (int64_t l = 0; l < kPlaces; ++l) places[i + l] = before[l];
  }
}

constexpr int64_t kDoubles = 8;  // sums side by side

PCDET_WIDE double length2_of(const float* row, const double* centre, int64_t channels) {
  double lanes[kDoubles] = {};
  int64_t c = 0;
  for (; c + kDoubles <= channels; c += kDoubles)
    for (int64_t l = 0; l < kDoubles; ++l) {
      const double x = row[c + l] - centre[c + l];
      lanes[l] += x * x;
    }
  double rest = 0;
  for (; c < channels; ++c) rest += (row[c] - centre[c]) * (row[c] - centre[c]);
  return rest + sum_of(lanes);
}

// Adding and subtracting it rounds a double to the nearest integer: the sum has no bits for a fraction.
constexpr double kRounder = 6755399441055744.0;  // 1.5 * 2^52

PCDET_WIDE Rounded round_row(const float* row, const double* centre, double scale, int64_t channels, int16_t* out) {
  double length2[kDoubles] = {}, residual2[kDoubles] = {};
  int64_t c = 0;
  for (; c + kDoubles <= channels; c += kDoubles)
    for (int64_t l = 0; l < kDoubles; ++l) {
      const double x = (row[c + l] - centre[c + l]) * scale, whole = (x + kRounder) - kRounder;
      length2[l] += whole * whole;
      residual2[l] += (x - whole) * (x - whole);
      out[c + l] = static_cast<int16_t>(static_cast<int32_t>(whole));
    }
  double rest_length2 = 0, rest_residual2 = 0;
  for (; c < channels; ++c) {
    const double x = (row[c] - centre[c]) * scale, whole = (x + kRounder) - kRounder;
    rest_length2 += whole * whole;
    rest_residual2 += (x - whole) * (x - whole);
    out[c] = static_cast<int16_t>(static_cast<int32_t>(whole));
  }
  return {rest_length2 + sum_of(length2), rest_residual2 + sum_of(residual2)};
}

}  // namespace pcdet::cpu
