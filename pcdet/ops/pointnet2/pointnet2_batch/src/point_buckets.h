// One frame's points in buckets of neighbours, coordinate by coordinate, with the upright box around each bucket: a
// search dismisses whole buckets by their boxes and goes through the others in vector registers. CPU only.
#pragma once

#include <array>
#include <utility>
#include <vector>

#include "point_distance.h"

namespace pcdet::PCDET_BACKEND {

// Places along a curve that keeps neighbours together (Morton's): the bits of x, y and z in turn, ten of each.
template <typename T>
class MortonCurve {
 public:
  MortonCurve(const T* points, int64_t n) {  // (n, 3)
    std::array<T, 3> high;
    for (int a = 0; a < 3; ++a) low_[a] = high[a] = points[a];
    for (int64_t i = 1; i < n; ++i)
      for (int a = 0; a < 3; ++a) {
        low_[a] = std::min(low_[a], points[i * 3 + a]);
        high[a] = std::max(high[a], points[i * 3 + a]);
      }
    const T extent = std::max({high[0] - low_[0], high[1] - low_[1], high[2] - low_[2]});
    scale_ = extent > std::numeric_limits<T>::min() * kSteps ? T(kSteps - 1) / extent : T(0);
  }
  uint32_t place(const T* point) const { return spread(point, 0) | spread(point, 1) << 1 | spread(point, 2) << 2; }

 private:
  static constexpr uint32_t kSteps = 1024;
  uint32_t spread(const T* point, int axis) const {
    uint32_t v = std::min(static_cast<uint32_t>((point[axis] - low_[axis]) * scale_), kSteps - 1);
    v = (v | v << 16) & 0x030000FFu;
    v = (v | v << 8) & 0x0300F00Fu;
    v = (v | v << 4) & 0x030C30C3u;
    return (v | v << 2) & 0x09249249u;
  }
  std::array<T, 3> low_;
  T scale_;
};

// 0 .. n - 1 in the order of the points along the curve; a radix sort, points of one place by index.
template <typename T>
std::vector<int32_t> order_along_curve(const T* points, int64_t n) {
  constexpr int kDigit = 10, kPasses = 3;
  const MortonCurve<T> curve(points, n);
  std::vector<uint32_t> key(n), key_before(n);
  std::vector<int32_t> order(n), order_before(n);
  std::array<std::array<int32_t, 1 << kDigit>, kPasses> begin{};
  for (int64_t i = 0; i < n; ++i) {
    key[i] = curve.place(points + i * 3);
    order[i] = static_cast<int32_t>(i);
    for (int pass = 0; pass < kPasses; ++pass) ++begin[pass][key[i] >> pass * kDigit & ((1 << kDigit) - 1)];
  }
  for (int pass = 0; pass < kPasses; ++pass) {
    int32_t total = 0;
    for (int32_t& entry : begin[pass]) total += std::exchange(entry, total);
    key.swap(key_before);
    order.swap(order_before);
    for (int64_t i = 0; i < n; ++i) {
      const int32_t at = begin[pass][key_before[i] >> pass * kDigit & ((1 << kDigit) - 1)]++;
      key[at] = key_before[i];
      order[at] = order_before[i];
    }
  }
  return order;
}

template <typename T>
struct PointBuckets {
  static constexpr int32_t kNoPoint = std::numeric_limits<int32_t>::max();

  int64_t count, capacity;                          // buckets, and points in each
  std::vector<T> x, y, z;                           // (count * capacity,), infinite where there is no point
  std::vector<int32_t> index;                       // (count * capacity,) row of the point, or kNoPoint
  std::array<std::vector<T>, 3> box_low, box_high;  // (count,) for each axis; infinitely far where there is no point

  // `points` (n, 3), n > 0. The number of buckets is a multiple of `multiple`.
  PointBuckets(const T* points, int64_t n, int64_t points_a_bucket, int64_t multiple)
      : count((n + points_a_bucket * multiple - 1) / (points_a_bucket * multiple) * multiple),
        capacity(points_a_bucket) {
    constexpr T kFar = std::numeric_limits<T>::infinity();
    const auto order = order_along_curve(points, n);
    for (auto* row : {&x, &y, &z}) row->assign(count * capacity, kFar);
    index.assign(count * capacity, kNoPoint);
    for (int a = 0; a < 3; ++a) box_low[a].assign(count, kFar), box_high[a].assign(count, -kFar);
    for (int64_t i = 0; i < n; ++i) {
      const T* point = points + int64_t(order[i]) * 3;
      x[i] = point[0], y[i] = point[1], z[i] = point[2];
      index[i] = order[i];
      for (int a = 0; a < 3; ++a) {
        T &low = box_low[a][i / capacity], &high = box_high[a][i / capacity];
        low = std::min(low, point[a]);
        high = std::max(high, point[a]);
      }
    }
  }

  // Low and high corners of the boxes around every `size` buckets, which must divide their number.
  std::array<std::array<std::vector<T>, 3>, 2> boxes_of_groups(int64_t size) const {
    std::array<std::array<std::vector<T>, 3>, 2> out;
    for (int a = 0; a < 3; ++a)
      for (int64_t b = 0; b < count; b += size) {
        out[0][a].push_back(*std::min_element(box_low[a].begin() + b, box_low[a].begin() + b + size));
        out[1][a].push_back(*std::max_element(box_high[a].begin() + b, box_high[a].begin() + b + size));
      }
    return out;
  }
};

// Upright boxes as plain pointers, for loops that are vectorised.
template <typename T>
struct UprightBoxes {
  const T *low_x, *low_y, *low_z, *high_x, *high_y, *high_z;  // (count,)

  UprightBoxes(const std::array<std::vector<T>, 3>& low, const std::array<std::vector<T>, 3>& high)
      : low_x(low[0].data()),
        low_y(low[1].data()),
        low_z(low[2].data()),
        high_x(high[0].data()),
        high_y(high[1].data()),
        high_z(high[2].data()) {}

  // Not above the computed squared distance of any point in box b: rounding keeps the order of differences, of
  // products and of sums.
  T bound(int64_t b, T px, T py, T pz) const {
    return squared_norm(outside(low_x[b], high_x[b], px), outside(low_y[b], high_y[b], py),
                        outside(low_z[b], high_z[b], pz));
  }

 private:
  static T outside(T low, T high, T p) {
    const T below = low - p, above = p - high;
    const T most = below > above ? below : above;
    return most > T(0) ? most : T(0);
  }
};

}  // namespace pcdet::PCDET_BACKEND
