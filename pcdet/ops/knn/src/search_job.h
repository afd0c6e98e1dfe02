// One frame's part of a search: its queries, its base rows, and where the results go.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "simd_kernels.h"

namespace pcdet::cpu {

// The queries and base rows, where the results go, and the number of the first base row.
template <typename T>
struct SearchJob {
  const T *query, *base;  // (Q, C), (M, C)
  int64_t num_queries, num_base, channels, k, first_row;
  T* dist2;      // (Q, k)
  int64_t* idx;  // (Q, k)

  const T* query_row(int64_t q) const { return query + q * channels; }

  // Ranks base rows by their exact distances to query q and writes the best.
  void rank(int64_t q, const int32_t* rows, int64_t count) const {
    thread_local std::vector<T> distances;
    distances.resize(count);
    distances_to(query_row(q), base, channels, rows, count, distances.data());
    write(q, distances.data(), rows, count);
  }

  // Sorts the candidates of query q, whose squared distances are given, and writes the best. A distance that overflows
  // is no neighbour's.
  void write(int64_t q, const T* distances, const int32_t* rows, int64_t count) const;

  // Writes that query q has no neighbours from the j-th on.
  void write_missing(int64_t q, int64_t j) const {
    std::fill(dist2 + q * k + j, dist2 + (q + 1) * k, std::numeric_limits<T>::infinity());
    std::fill(idx + q * k + j, idx + (q + 1) * k, -1);
  }

 private:
  void put(int64_t q, int64_t j, T distance2, int32_t row) const {
    dist2[q * k + j] = distance2;
    idx[q * k + j] = std::isinf(distance2) ? -1 : first_row + row;
  }
};

template <>
inline void SearchJob<double>::write(int64_t q, const double* distances, const int32_t* rows, int64_t count) const {
  thread_local std::vector<std::pair<double, int32_t>> pairs;
  pairs.resize(count);
  for (int64_t i = 0; i < count; ++i) pairs[i] = {distances[i], rows[i]};
  const int64_t wanted = std::min(count, k);
  std::partial_sort(pairs.begin(), pairs.begin() + wanted, pairs.end());
  for (int64_t j = 0; j < wanted; ++j) put(q, j, pairs[j].first, pairs[j].second);
  write_missing(q, wanted);
}

template <>
inline void SearchJob<float>::write(int64_t q, const float* distances, const int32_t* rows, int64_t count) const {
  constexpr int64_t kQuadratic = 24 * kPlaces;  // up to so many candidates counting is faster than sorting
  const int64_t wanted = std::min(count, k);
  if (count <= kQuadratic) {
    float near[kQuadratic] = {};
    int32_t of[kQuadratic] = {}, places[kQuadratic];
    std::copy_n(distances, count, near);
    std::copy_n(rows, count, of);
    places_of(near, of, count, places);
    for (int64_t i = 0; i < count; ++i)
      if (places[i] < k) put(q, places[i], near[i], of[i]);
  } else {
    // A distance and a row as one number: distances are not negative, so their bits have their order.
    thread_local std::vector<uint64_t> keys;
    keys.resize(count);
    for (int64_t i = 0; i < count; ++i)
      keys[i] = uint64_t(std::bit_cast<uint32_t>(distances[i])) << 32 | static_cast<uint32_t>(rows[i]);
    if (count > 2 * wanted) std::nth_element(keys.begin(), keys.begin() + wanted, keys.end());
    std::sort(keys.begin(), count > 2 * wanted ? keys.begin() + wanted : keys.end());
    for (int64_t j = 0; j < wanted; ++j)
      put(q, j, std::bit_cast<float>(static_cast<uint32_t>(keys[j] >> 32)), static_cast<int32_t>(keys[j]));
  }
  write_missing(q, wanted);
}

}  // namespace pcdet::cpu
