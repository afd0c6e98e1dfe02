// K nearest neighbours on the CPU: a k-d tree for up to three coordinates, fused products and selection for wide rows.
#include <ATen/ops/full.h>
#include <pcdet/simd.h>

#include <numeric>

#include "frames.h"
#include "scan.h"
#include "tree.h"

namespace pcdet::PCDET_BACKEND {

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

template <typename T>
inline int64_t count_within(const T* values, int64_t count, T limit) {
  int64_t within = 0;
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
PCDET_WIDE std::pair<int32_t, int32_t> ordered_range(const float* values, int64_t count) {
  return range_of(values, count);
}
PCDET_WIDE std::pair<int64_t, int64_t> ordered_range(const double* values, int64_t count) {
  return range_of(values, count);
}

// Squared distance by differences: what is returned, and what decides among candidates.
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
  for (int64_t half = kLanes / 2; half > 0; half /= 2)
    for (int64_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  return sum + lanes[0];
}

// out[i] = squared distance of the query to base row rows[i]. The rows lie anywhere: the next ones are asked for early.
template <typename T>
inline void distances_to_rows(const T* query, const T* base, int64_t channels, const int32_t* rows, int64_t count,
                              T* out) {
  constexpr int64_t kAhead = 6, kLine = 64 / sizeof(T);
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

// A distance and a row as one number in the order of (distance, row): sorting compares single numbers.
template <typename T>
struct Key {
  using Type = std::pair<T, int32_t>;
  static Type make(T distance2, int32_t row) { return {distance2, row}; }
  static T distance2(const Type& key) { return key.first; }
  static int32_t row(const Type& key) { return key.second; }
};
template <>
struct Key<float> {
  using Type = uint64_t;  // distances are not negative, so their bits have their order
  static Type make(float distance2, int32_t row) {
    return static_cast<uint64_t>(std::bit_cast<uint32_t>(distance2)) << 32 | static_cast<uint32_t>(row);
  }
  static float distance2(Type key) { return std::bit_cast<float>(static_cast<uint32_t>(key >> 32)); }
  static int32_t row(Type key) { return static_cast<int32_t>(key & 0xffffffffu); }
};

// One frame: its queries, its base rows, where its results go, and the number of its first base row.
template <typename T>
struct Frame {
  const T *query, *base;  // (Q, C), (M, C)
  int64_t num_queries, num_base, channels, k, first_row;
  T* dist2;      // (Q, k)
  int64_t* idx;  // (Q, k)

  // Sorts the candidates of query q, whose squared distances are given, and writes the best.
  void write(int64_t q, const T* distances, const int32_t* rows, int64_t count) const {
    thread_local std::vector<typename Key<T>::Type> keys;
    keys.resize(count);
    for (int64_t i = 0; i < count; ++i) keys[i] = Key<T>::make(distances[i], rows[i]);
    const int64_t wanted = std::min(count, k);
    if (count > 2 * wanted) std::nth_element(keys.begin(), keys.begin() + wanted, keys.end());
    std::sort(keys.begin(), count > 2 * wanted ? keys.begin() + wanted : keys.end());
    for (int64_t j = 0; j < wanted; ++j) {
      dist2[q * k + j] = Key<T>::distance2(keys[j]);
      idx[q * k + j] = first_row + Key<T>::row(keys[j]);
    }
  }
};

template <typename T>
void search_space(const Frame<T>& f) {
  constexpr int64_t kSpare = kLeaf;  // little: the sooner the bound is tight, the fewer leaves are seen
  const Tree<T> tree(f.base, f.num_base, f.channels);
  const int64_t k = std::min(f.k, f.num_base);
  at::parallel_for(0, f.num_queries, /*grain_size=*/256, [&](int64_t begin, int64_t end) {
    Candidates<T> found;
    for (int64_t q = begin; q < end; ++q) {
      Place<T> at{};
      for (int64_t d = 0; d < f.channels; ++d) at[d] = f.query[q * f.channels + d];
      found.start(k, std::max(kSpare, k / 2), T(0));
      tree.search(at, found);
      const int64_t count = found.finish();
      f.write(q, found.values(), found.rows(), count);
    }
  });
}

// Ranks the candidates by their exact distances and writes the best.
template <typename T>
void rank(const Frame<T>& f, int64_t q, Candidates<T>& found) {
  thread_local std::vector<T> distances;
  const int64_t count = found.finish();
  distances.resize(count);
  distances_to(f.query + q * f.channels, f.base, f.channels, found.rows(), count, distances.data());
  f.write(q, distances.data(), found.rows(), count);
}

void search_features(const Frame<float>& f) {
  constexpr int64_t kTilesOfBlock = 4, kCacheFloats = 32 * 1024;  // a chunk of base rows: half of a usual L2 cache
  static const Scan scan = best_scan();
  const PackedBase base(f.base, f.num_base, f.channels);
  const int64_t k = std::min(f.k, f.num_base), tile = scan.queries, channels = f.channels;
  const int64_t chunk = std::max<int64_t>(1, kCacheFloats / (kPanel * channels));
  const int64_t tiles = (f.num_queries + tile - 1) / tile;
  const int64_t tiles_per_thread = 1 + 32 * kItemsPerThread * kPanel / (tile * f.num_base * channels);
  at::parallel_for(0, tiles, tiles_per_thread, [&](int64_t begin, int64_t end) {
    std::vector<Candidates<float>> found(kTilesOfBlock * tile);
    std::vector<Candidates<float>*> pointers(found.size());
    for (size_t i = 0; i < found.size(); ++i) pointers[i] = &found[i];
    std::vector<float> packed(kTilesOfBlock * tile * channels);
    for (int64_t block = begin; block < end; block += kTilesOfBlock) {
      const int64_t in_block = std::min(kTilesOfBlock, end - block), first = block * tile;
      std::fill(packed.begin(), packed.end(), 0.0f);
      for (int64_t i = 0; i < in_block * tile; ++i) {
        float* column = packed.data() + i / tile * tile * channels + i % tile;
        double norm = 0;
        for (int64_t c = 0; c < channels && first + i < f.num_queries; ++c) {
          const float x = f.query[(first + i) * channels + c] - base.centre()[c];
          column[c * tile] = -2 * x;
          norm += static_cast<double>(x) * x;
        }
        found[i].start(k, std::max<int64_t>(2 * k, 64), base.margin(norm));
        if (first + i >= f.num_queries) found[i].close();  // fills the tile up
      }
      for (int64_t panel = 0; panel < base.panels(); panel += chunk)
        for (int64_t t = 0; t < in_block; ++t)
          scan.panels(base, panel, std::min(panel + chunk, base.panels()), packed.data() + t * tile * channels,
                      pointers.data() + t * tile);
      for (int64_t i = 0; i < in_block * tile && first + i < f.num_queries; ++i) rank(f, first + i, found[i]);
    }
  });
}

// float64 is for checks: every distance by differences.
void search_features(const Frame<double>& f) {
  const int64_t k = std::min(f.k, f.num_base);
  std::vector<int32_t> rows(f.num_base);
  std::iota(rows.begin(), rows.end(), 0);
  at::parallel_for(0, f.num_queries, /*grain_size=*/16, [&](int64_t begin, int64_t end) {
    Candidates<double> found;
    std::vector<double> distances(f.num_base);
    for (int64_t q = begin; q < end; ++q) {
      found.start(k, std::max<int64_t>(k, 64), 0.0);
      distances_to(f.query + q * f.channels, f.base, f.channels, rows.data(), f.num_base, distances.data());
      for (int64_t i = 0; i < f.num_base; ++i)
        if (distances[i] <= found.bound()) found.push(distances[i], static_cast<int32_t>(i));
      rank(f, q, found);
    }
  });
}

void check_ascending(const char* name, const at::Tensor& frame) {
  const auto* ids = frame.const_data_ptr<int64_t>();
  TORCH_CHECK_VALUE(std::is_sorted(ids, ids + frame.numel()), name,
                    " must be non-decreasing; sort the rows by frame first");
}

std::tuple<at::Tensor, at::Tensor> knn(const at::Tensor& query, const at::Tensor& base, int64_t k,
                                       const std::optional<at::Tensor>& query_frame,
                                       const std::optional<at::Tensor>& base_frame) {
  check_knn(query, base, k, query_frame, base_frame);
  const at::Tensor q = query.contiguous(), b = base.contiguous();
  check_finite("query", q);
  check_finite("base", b);
  const at::Tensor q_frame =
      query_frame ? query_frame->contiguous() : at::zeros({q.size(0)}, q.options().dtype(at::kLong));
  const at::Tensor b_frame =
      base_frame ? base_frame->contiguous() : at::zeros({b.size(0)}, b.options().dtype(at::kLong));
  check_ascending("query_frame", q_frame);
  check_ascending("base_frame", b_frame);
  at::Tensor dist2 = at::full({q.size(0), k}, std::numeric_limits<double>::infinity(), q.options());
  at::Tensor idx = at::full({q.size(0), k}, -1, q.options().dtype(at::kLong));
  AT_DISPATCH_FLOATING_TYPES(q.scalar_type(), "knn", [&] {
    const int64_t channels = q.size(1);
    const auto *q_ids = q_frame.const_data_ptr<int64_t>(), *q_end = q_ids + q.size(0);
    const auto *b_ids = b_frame.const_data_ptr<int64_t>(), *b_end = b_ids + b.size(0);
    for (const int64_t* at = q_ids; at != q_end;) {
      const int64_t* next = std::upper_bound(at, q_end, *at);
      const auto [from, to] = std::equal_range(b_ids, b_end, *at);
      const int64_t first = at - q_ids, first_row = from - b_ids;
      const Frame<scalar_t> frame{q.const_data_ptr<scalar_t>() + first * channels,
                                  b.const_data_ptr<scalar_t>() + first_row * channels,
                                  next - at,
                                  to - from,
                                  channels,
                                  k,
                                  first_row,
                                  dist2.mutable_data_ptr<scalar_t>() + first * k,
                                  idx.mutable_data_ptr<int64_t>() + first * k};
      if (frame.num_base > 0) channels <= kDims ? search_space(frame) : search_features(frame);
      at = next;
    }
  });
  return {dist2, idx};
}

TORCH_LIBRARY_IMPL(pcdet, CPU, m) { m.impl("knn", &knn); }

}  // namespace pcdet::PCDET_BACKEND
