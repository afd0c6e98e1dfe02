// The three nearest points on the CPU: buckets of 16 points in groups of 16 buckets, nearest box first; what lies
// behind the third-best distance so far is never looked at.
#include <pcdet/simd.h>

#include <cstring>

#include "point_buckets.h"

namespace pcdet::PCDET_BACKEND {

constexpr int64_t kFew = 16;  // points in a bucket, buckets in a group

template <typename T>
struct KnownPoints {
  int64_t num_groups;
  UprightBoxes<T> group_boxes, boxes;  // (groups,), (buckets,)
  const T *x, *y, *z;                  // (buckets * kFew,)
  const int32_t* index;                // (buckets * kFew,)
  Ordered<T>* group_bound;             // (groups,) of the query at hand
  uint8_t* in_reach;                   // (groups rounded up to 8,)
};

// The best so far, by distance, then by index. Where there are too few points: infinitely far, index 0.
template <typename T>
struct BestThree {
  Ordered<T> distance[3];
  int32_t index[3];

  [[gnu::always_inline]] void offer(Ordered<T> d, int32_t i) {
    if (d > distance[2] || (d == distance[2] && i >= index[2])) return;
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
[[gnu::always_inline]] inline int64_t smallest(const Ordered<T>* bound, int64_t n) {
  Ordered<T> least = bound[0];
  for (int64_t k = 0; k < n; ++k) least = bound[k] < least ? bound[k] : least;
  int64_t at = 0;
  while (bound[at] != least) ++at;
  return at;
}

template <typename T>
[[gnu::always_inline]] inline void search_bucket(const KnownPoints<T>& s, int64_t bucket, const T* q,
                                                 BestThree<T>& best) {
  const T *x = s.x + bucket * kFew, *y = s.y + bucket * kFew, *z = s.z + bucket * kFew;
  const T qx = q[0], qy = q[1], qz = q[2];
  Ordered<T> distance[kFew];
  alignas(8) uint8_t close[kFew];
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
  Ordered<T> bound[kFew];
  for (int64_t k = 0; k < kFew; ++k) bound[k] = ordered(s.boxes.bound(group * kFew + k, qx, qy, qz));
  const int64_t nearest = smallest<T>(bound, kFew);
  if (bound[nearest] > best.distance[2]) return;
  search_bucket(s, group * kFew + nearest, q, best);
  for (int64_t k = 0; k < kFew; ++k)
    if (k != nearest && bound[k] <= best.distance[2]) search_bucket(s, group * kFew + k, q, best);
}

template <typename T>
[[gnu::always_inline]] inline void search_known(const KnownPoints<T>& s, const T* queries, int64_t n, T* dist2,
                                                int32_t* idx) {
  for (int64_t i = 0; i < n; ++i) {
    const T* q = queries + i * 3;
    const T qx = q[0], qy = q[1], qz = q[2];
    const Ordered<T> far = ordered(std::numeric_limits<T>::infinity());
    BestThree<T> best{{far, far, far}, {0, 0, 0}};
    for (int64_t g = 0; g < s.num_groups; ++g) s.group_bound[g] = ordered(s.group_boxes.bound(g, qx, qy, qz));
    const int64_t nearest = smallest<T>(s.group_bound, s.num_groups);
    search_group(s, nearest, q, best);
    for (int64_t g = 0; g < s.num_groups; ++g) s.in_reach[g] = s.group_bound[g] <= best.distance[2];
    s.in_reach[nearest] = 0;
    for (int64_t eight = 0; eight < s.num_groups; eight += 8) {
      uint64_t any;
      std::memcpy(&any, s.in_reach + eight, 8);
      for (; any != 0; any &= any - 1) search_group(s, eight + std::countr_zero(any) / 8, q, best);
    }
    for (int k = 0; k < 3; ++k) {
      dist2[i * 3 + k] = std::bit_cast<T>(best.distance[k]);
      idx[i * 3 + k] = best.index[k];
    }
  }
}

PCDET_WIDE void search_three(const KnownPoints<float>& s, const float* queries, int64_t n, float* dist2, int32_t* idx) {
  search_known(s, queries, n, dist2, idx);
}
PCDET_WIDE void search_three(const KnownPoints<double>& s, const double* queries, int64_t n, double* dist2,
                             int32_t* idx) {
  search_known(s, queries, n, dist2, idx);
}

template <typename T>
void find_three(const at::Tensor& unknown, const at::Tensor& known, T* dist2, int32_t* idx) {
  constexpr int64_t kQueriesPerThread = 4096;  // of about half a microsecond each
  const int64_t n = unknown.size(1), m = known.size(1);
  for (int64_t frame = 0; frame < unknown.size(0); ++frame) {
    const PointBuckets<T> buckets(known.const_data_ptr<T>() + frame * m * 3, m, kFew, kFew);
    const auto group_boxes = buckets.boxes_of_groups(kFew);
    const int64_t groups = buckets.count / kFew;
    at::parallel_for(0, n, kQueriesPerThread, [&](int64_t begin, int64_t end) {
      std::vector<Ordered<T>> group_bound(groups);
      std::vector<uint8_t> in_reach(groups + 8);
      const KnownPoints<T> s{groups,
                             {group_boxes[0], group_boxes[1]},
                             {buckets.box_low, buckets.box_high},
                             buckets.x.data(),
                             buckets.y.data(),
                             buckets.z.data(),
                             buckets.index.data(),
                             group_bound.data(),
                             in_reach.data()};
      const int64_t row = frame * n + begin;
      search_three(s, unknown.const_data_ptr<T>() + row * 3, end - begin, dist2 + row * 3, idx + row * 3);
    });
  }
}

}  // namespace pcdet::PCDET_BACKEND

#include "three_nn_host.h"
