// The loops of knn that the compiler can vectorise; simd_kernels.cpp compiles each for several processors.
#pragma once

#include <cstdint>
#include <utility>

namespace pcdet::cpu {

constexpr int64_t kLeaf = 32;  // points of a k-d tree's leaf

// How many of the values a limit admits.
int64_t count_at_most(const int32_t* values, int64_t count, int32_t limit);
int64_t count_at_most(const float* values, int64_t count, float limit);
int64_t count_at_most(const double* values, int64_t count, double limit);

// The least and the greatest value, as integers of the same order (see Ordered).
std::pair<int32_t, int32_t> ordered_range(const int32_t* values, int64_t count);
std::pair<int32_t, int32_t> ordered_range(const float* values, int64_t count);
std::pair<int64_t, int64_t> ordered_range(const double* values, int64_t count);

// out[j] = squared distance of q to (x[j], y[j], z[j]), j < kLeaf.
void leaf_distances(const float* x, const float* y, const float* z, const float* q, float* out);
void leaf_distances(const double* x, const double* y, const double* z, const double* q, double* out);

// out[i] = squared distance of a query to base row rows[i], from the differences: what is returned, and what decides
// among candidates.
void distances_to(const float* query, const float* base, int64_t channels, const int32_t* rows, int64_t count,
                  float* out);
void distances_to(const double* query, const double* base, int64_t channels, const int32_t* rows, int64_t count,
                  double* out);

// places[i] = how many of `count` (distance, row) pairs come before pair i. Quadratic, without a branch. All three must
// have room for a multiple of kPlaces; what stands there beyond count does not matter.
constexpr int64_t kPlaces = 16;
void places_of(const float* distances, const int32_t* rows, int64_t count, int32_t* places);

// The squared length of row - centre.
double length2_of(const float* row, const double* centre, int64_t channels);

// out = (row - centre) * scale, rounded to integers.
struct Rounded {
  double length2;    // of the integers, exact
  double residual2;  // squared length of what rounding took away
};
Rounded round_row(const float* row, const double* centre, double scale, int64_t channels, int16_t* out);

}  // namespace pcdet::cpu
