// Furthest point sampling on the CPU, exact: points stand in buckets of neighbours, and a new pick reaches few of them.
//
// A bucket knows the point in it that is furthest from all picks. A pick further from the bucket's box than that point
// is from the picks changes nothing in the bucket; one that does not come nearer to that very point changes only other
// points, and waits until they are asked for (after Han et al., QuickFPS, IEEE TCAD 2023, with a curve instead of a
// tree).
#include <pcdet/simd.h>

#include <cstring>

#include "furthest_point_sample_host.h"
#include "point_buckets.h"

namespace pcdet::PCDET_BACKEND {

constexpr int64_t kBucket = 64;      // points
constexpr int64_t kGroup = 16;       // buckets that a pick's first look dismisses together
constexpr int64_t kMostWaiting = 8;  // picks that wait at a bucket

template <typename T>
struct FurthestSearch {
  const T* points;  // (N, 3)
  int64_t num_groups;
  UprightBoxes<T> group_boxes, boxes;         // (groups,), (buckets,)
  const T *x, *y, *z;                         // (buckets * kBucket,)
  const int32_t* index;                       // (buckets * kBucket,)
  DistanceBits<T>* nearest;                   // (buckets * kBucket,) squared distance to the nearest pick; -1: no point
  DistanceBits<T>*furthest, *group_furthest;  // (buckets,), (groups,) the greatest of them
  int32_t *furthest_index, *group_index;      // (buckets,), (groups,) the first point that has it
  T *furthest_x, *furthest_y, *furthest_z;    // (buckets,) its place
  T* waiting;                                 // (buckets, kMostWaiting, 3)
  uint8_t* num_waiting;                       // (buckets,)
  uint8_t* touched;                           // (groups rounded up to 8,)
};

template <typename T>
[[gnu::always_inline]] inline void come_nearer(const FurthestSearch<T>& s, int64_t bucket, const T* pick) {
  const int64_t first = bucket * kBucket;
  const T *x = s.x + first, *y = s.y + first, *z = s.z + first;
  DistanceBits<T>* nearest = s.nearest + first;
  const T px = pick[0], py = pick[1], pz = pick[2];
  for (int64_t k = 0; k < kBucket; ++k) {
    const DistanceBits<T> d = ordered(squared_norm(x[k] - px, y[k] - py, z[k] - pz));
    nearest[k] = d < nearest[k] ? d : nearest[k];
  }
}

template <typename T>
struct Furthest {
  DistanceBits<T> distance;
  int32_t index;
};

// The greatest distance and, among those that have it, the smallest index.
template <typename T>
[[gnu::always_inline]] inline Furthest<T> furthest_of(const DistanceBits<T>* distance, const int32_t* index,
                                                      int64_t n) {
  DistanceBits<T> most = -1;
  for (int64_t k = 0; k < n; ++k) most = distance[k] > most ? distance[k] : most;
  int32_t first = PointBuckets<T>::kNoPoint;
  for (int64_t k = 0; k < n; ++k) {
    const int32_t candidate = distance[k] == most ? index[k] : PointBuckets<T>::kNoPoint;
    first = candidate < first ? candidate : first;
  }
  return {most, first};
}

template <typename T>
[[gnu::always_inline]] inline void refresh(const FurthestSearch<T>& s, int64_t bucket) {
  for (int64_t w = 0; w < s.num_waiting[bucket]; ++w)
    come_nearer(s, bucket, s.waiting + (bucket * kMostWaiting + w) * 3);
  s.num_waiting[bucket] = 0;
  const Furthest<T> found = furthest_of<T>(s.nearest + bucket * kBucket, s.index + bucket * kBucket, kBucket);
  s.furthest[bucket] = found.distance;
  s.furthest_index[bucket] = found.index;
  if (found.distance < 0) return;  // an empty bucket at the end
  const int64_t first = found.index;
  s.furthest_x[bucket] = s.points[first * 3];
  s.furthest_y[bucket] = s.points[first * 3 + 1];
  s.furthest_z[bucket] = s.points[first * 3 + 2];
}

template <typename T>
[[gnu::always_inline]] inline void wait(const FurthestSearch<T>& s, int64_t bucket, const T* pick) {
  T* place = s.waiting + (bucket * kMostWaiting + s.num_waiting[bucket]++) * 3;
  place[0] = pick[0], place[1] = pick[1], place[2] = pick[2];
}

template <typename T>
[[gnu::always_inline]] inline void refresh_group(const FurthestSearch<T>& s, int64_t group) {
  const auto found = furthest_of<T>(s.furthest + group * kGroup, s.furthest_index + group * kGroup, kGroup);
  s.group_furthest[group] = found.distance;
  s.group_index[group] = found.index;
}

// Lets a group's buckets know of a pick.
template <typename T>
[[gnu::always_inline]] inline void take_in_group(const FurthestSearch<T>& s, int64_t group, const T* pick) {
  const T px = pick[0], py = pick[1], pz = pick[2];
  alignas(8) uint8_t verdict[kGroup];
  for (int64_t k = 0; k < kGroup; ++k) {
    const int64_t b = group * kGroup + k;
    const DistanceBits<T> bound = ordered(s.boxes.bound(b, px, py, pz));
    const DistanceBits<T> to_furthest =
        ordered(squared_norm(s.furthest_x[b] - px, s.furthest_y[b] - py, s.furthest_z[b] - pz));
    verdict[k] = (bound < s.furthest[b] ? 1 : 0) + (to_furthest < s.furthest[b] ? 1 : 0);
  }
  bool changed = false;
  for (int64_t k = 0; k < kGroup; ++k) {
    if (verdict[k] == 0) continue;
    const int64_t b = group * kGroup + k;
    wait(s, b, pick);
    if (verdict[k] < 2 && s.num_waiting[b] < kMostWaiting) continue;
    refresh(s, b);
    changed = true;
  }
  if (changed) refresh_group(s, group);
}

template <typename T>
[[gnu::always_inline]] inline void take(const FurthestSearch<T>& s, const T* pick) {
  const T px = pick[0], py = pick[1], pz = pick[2];
  for (int64_t g = 0; g < s.num_groups; ++g)
    s.touched[g] = ordered(s.group_boxes.bound(g, px, py, pz)) < s.group_furthest[g];
  for (int64_t eight = 0; eight < s.num_groups; eight += 8) {
    uint64_t any;
    std::memcpy(&any, s.touched + eight, 8);
    for (; any != 0; any &= any - 1) take_in_group(s, eight + std::countr_zero(any) / 8, pick);
  }
}

template <typename T>
[[gnu::always_inline]] inline void search_all(const FurthestSearch<T>& s, int64_t npoint, int32_t* picks) {
  for (int64_t g = 0; g < s.num_groups; ++g) {
    for (int64_t b = g * kGroup; b < (g + 1) * kGroup; ++b) {
      wait(s, b, s.points);
      refresh(s, b);
    }
    refresh_group(s, g);
  }
  picks[0] = 0;
  for (int64_t i = 1; i < npoint; ++i) {
    picks[i] = furthest_of<T>(s.group_furthest, s.group_index, s.num_groups).index;
    take(s, s.points + int64_t(picks[i]) * 3);
  }
}

PCDET_WIDE void sample_by_buckets(const FurthestSearch<float>& s, int64_t npoint, int32_t* picks) {
  search_all(s, npoint, picks);
}
PCDET_WIDE void sample_by_buckets(const FurthestSearch<double>& s, int64_t npoint, int32_t* picks) {
  search_all(s, npoint, picks);
}

template <typename T>
void sample_frame(const T* points, int64_t n, int64_t npoint, int32_t* picks) {
  const PointBuckets<T> buckets(points, n, kBucket, kGroup);
  const int64_t count = buckets.count, groups = count / kGroup;
  const auto [group_low, group_high] = buckets.boxes_of_groups(kGroup);
  std::vector<DistanceBits<T>> nearest(count * kBucket, ordered(std::numeric_limits<T>::max())),
      furthest(count + groups);
  std::fill(nearest.begin() + n, nearest.end(), DistanceBits<T>(-1));
  std::vector<int32_t> furthest_index(count + groups);
  std::vector<T> furthest_place(count * 3), waiting(count * kMostWaiting * 3);
  std::vector<uint8_t> num_waiting(count), touched(groups + 8);
  sample_by_buckets(FurthestSearch<T>{points,
                                      groups,
                                      {group_low, group_high},
                                      {buckets.box_low, buckets.box_high},
                                      buckets.x.data(),
                                      buckets.y.data(),
                                      buckets.z.data(),
                                      buckets.index.data(),
                                      nearest.data(),
                                      furthest.data(),
                                      furthest.data() + count,
                                      furthest_index.data(),
                                      furthest_index.data() + count,
                                      furthest_place.data(),
                                      furthest_place.data() + count,
                                      furthest_place.data() + count * 2,
                                      waiting.data(),
                                      num_waiting.data(),
                                      touched.data()},
                    npoint, picks);
}

struct CpuFurthestPointSample {
  template <typename T>
  static void sample_frames(const at::Tensor& xyz, int64_t npoint, int32_t* picks) {
    const auto* points = xyz.const_data_ptr<T>();
    const int64_t n = xyz.size(1);
    constexpr int64_t kPicksPerThread = 2048;  // of about half a microsecond each
    at::parallel_for(0, xyz.size(0), std::max<int64_t>(1, kPicksPerThread / npoint), [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) sample_frame(points + b * n * 3, n, npoint, picks + b * npoint);
    });
  }
};

TORCH_LIBRARY_IMPL(pcdet, CPU, m) { register_furthest_point_sample<CpuFurthestPointSample>(m); }

}  // namespace pcdet::PCDET_BACKEND
