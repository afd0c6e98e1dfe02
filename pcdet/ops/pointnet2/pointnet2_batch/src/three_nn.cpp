// The three nearest points on the CPU: buckets of 16 points in groups of 16 buckets. Queries come in an order that
// keeps neighbours together, and each starts from its predecessor's three: what lies behind the third-best distance so
// far, which is then already a good one, is never looked at.
#include <pcdet/simd.h>

#include <cstring>

#include "point_buckets.h"
#include "three_nn_host.h"

namespace pcdet::PCDET_BACKEND {

constexpr int64_t kFew = 16;  // points in a bucket, buckets in a group

template <typename T>
struct KnownPoints {
  const T* points;  // (M, 3)
  int64_t num_points, num_groups;
  UprightBoxes<T> group_boxes, boxes;  // (groups,), (buckets,)
  const T *x, *y, *z;                  // (buckets * kFew,)
  const int32_t* index;                // (buckets * kFew,)
  uint8_t* in_reach;                   // (groups rounded up to 8,)
};

// Queries in the order in which they are answered.
template <typename T>
struct QueryBatch {
  const T* points;       // (N, 3)
  const int32_t* order;  // (N,) rows of points
  int64_t begin, end;    // of order
  T* dist2;              // (N, 3)
  int32_t* idx;          // (N, 3)
};

// The best so far, by distance, then by index. Where there are too few points: infinitely far, index 0.
template <typename T>
struct BestThree {
  DistanceBits<T> distance[3];
  int32_t index[3];

  // A point may be offered twice.
  [[gnu::always_inline]] void offer(DistanceBits<T> d, int32_t i) {
    if (d > distance[2] || (d == distance[2] && i >= index[2])) return;
    if ((d == distance[0] && i == index[0]) || (d == distance[1] && i == index[1])) return;
    int at = 2;
    for (; at > 0 && (d < distance[at - 1] || (d == distance[at - 1] && i < index[at - 1])); --at) {
      distance[at] = distance[at - 1];
      index[at] = index[at - 1];
    }
    distance[at] = d;
    index[at] = i;
  }
};

template <typename T>
[[gnu::always_inline]] inline void search_bucket(const KnownPoints<T>& s, int64_t bucket, const T* q,
                                                 BestThree<T>& best) {
  const T *x = s.x + bucket * kFew, *y = s.y + bucket * kFew, *z = s.z + bucket * kFew;
  const T qx = q[0], qy = q[1], qz = q[2];
  DistanceBits<T> distance[kFew];
  uint8_t close[kFew];
  for (int64_t k = 0; k < kFew; ++k) {
    distance[k] = ordered(squared_norm(qx - x[k], qy - y[k], qz - z[k]));
    close[k] = distance[k] <= best.distance[2];
  }
  for (int64_t half = 0; half < kFew; half += 8) {
    uint64_t any;
    std::memcpy(&any, close + half, 8);
    for (; any != 0; any &= any - 1) {
      const int64_t k = half + std::countr_zero(any) / 8;
      best.offer(distance[k], s.index[bucket * kFew + k]);
    }
  }
}

template <typename T>
[[gnu::always_inline]] inline void search_group(const KnownPoints<T>& s, int64_t group, const T* q,
                                                BestThree<T>& best) {
  const T qx = q[0], qy = q[1], qz = q[2];
  uint8_t in_reach[kFew];
  for (int64_t k = 0; k < kFew; ++k)
    in_reach[k] = ordered(s.boxes.bound(group * kFew + k, qx, qy, qz)) <= best.distance[2];
  for (int64_t half = 0; half < kFew; half += 8) {
    uint64_t any;
    std::memcpy(&any, in_reach + half, 8);
    for (; any != 0; any &= any - 1) search_bucket(s, group * kFew + half + std::countr_zero(any) / 8, q, best);
  }
}

template <typename T>
[[gnu::always_inline]] inline void search_known(const KnownPoints<T>& s, const QueryBatch<T>& batch) {
  int32_t guess[3] = {0, 1, 2};
  for (int64_t i = batch.begin; i < batch.end; ++i) {
    const int64_t row = batch.order[i];
    const T* q = batch.points + row * 3;
    const T qx = q[0], qy = q[1], qz = q[2];
    const DistanceBits<T> far = ordered(std::numeric_limits<T>::infinity());
    BestThree<T> best{{far, far, far}, {0, 0, 0}};
    for (int k = 0; k < 3 && s.num_points >= 3; ++k) {
      const T* p = s.points + int64_t(guess[k]) * 3;
      best.offer(ordered(squared_norm(qx - p[0], qy - p[1], qz - p[2])), guess[k]);
    }
    for (int64_t g = 0; g < s.num_groups; ++g)
      s.in_reach[g] = ordered(s.group_boxes.bound(g, qx, qy, qz)) <= best.distance[2];
    for (int64_t eight = 0; eight < s.num_groups; eight += 8) {
      uint64_t any;
      std::memcpy(&any, s.in_reach + eight, 8);
      for (; any != 0; any &= any - 1) search_group(s, eight + std::countr_zero(any) / 8, q, best);
    }
    for (int k = 0; k < 3; ++k) {
      batch.dist2[row * 3 + k] = std::bit_cast<T>(best.distance[k]);
      batch.idx[row * 3 + k] = guess[k] = best.index[k];
    }
  }
}

PCDET_WIDE void search_three(const KnownPoints<float>& s, const QueryBatch<float>& batch) { search_known(s, batch); }
PCDET_WIDE void search_three(const KnownPoints<double>& s, const QueryBatch<double>& batch) { search_known(s, batch); }

struct CpuThreeNn {
  template <typename T>
  static void find_three(const at::Tensor& unknown, const at::Tensor& known, T* dist2, int32_t* idx) {
    constexpr int64_t kQueriesPerThread = 8192;  // of about a quarter of a microsecond each
    const int64_t n = unknown.size(1), m = known.size(1);
    for (int64_t frame = 0; frame < unknown.size(0); ++frame) {
      const T *queries = unknown.const_data_ptr<T>() + frame * n * 3,
              *points = known.const_data_ptr<T>() + frame * m * 3;
      const auto order = order_along_curve(queries, n);
      const PointBuckets<T> buckets(points, m, kFew, kFew);
      const auto group_boxes = buckets.boxes_of_groups(kFew);
      const int64_t groups = buckets.count / kFew;
      at::parallel_for(0, n, kQueriesPerThread, [&](int64_t begin, int64_t end) {
        std::vector<uint8_t> in_reach(groups + 8);
        const KnownPoints<T> s{points,
                               m,
                               groups,
                               {group_boxes[0], group_boxes[1]},
                               {buckets.box_low, buckets.box_high},
                               buckets.x.data(),
                               buckets.y.data(),
                               buckets.z.data(),
                               buckets.index.data(),
                               in_reach.data()};
        search_three(s, {queries, order.data(), begin, end, dist2 + frame * n * 3, idx + frame * n * 3});
      });
    }
  }
};

TORCH_LIBRARY_IMPL(pcdet, CPU, m) { register_three_nn<CpuThreeNn>(m); }

}  // namespace pcdet::PCDET_BACKEND
