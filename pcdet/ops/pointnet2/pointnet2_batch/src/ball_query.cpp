// Ball query on the CPU. What counts is the points' order, not their distance: in a crowded place the first points are
// found soonest by walking all points from the start, elsewhere by looking into the few cells around the centre.
#include <pcdet/simd.h>

#include <array>
#include <cstring>
#include <numeric>
#include <vector>

#include "ball_query_host.h"

namespace pcdet::PCDET_BACKEND {

template <typename T>
struct PointRows {
  const T *x, *y, *z;
  const int32_t* index;
};

// Points coordinate by coordinate, in any order.
template <typename T>
struct PointColumns {
  std::vector<T> x, y, z;
  std::vector<int32_t> index;

  PointColumns(const T* points, std::vector<int32_t> order) : index(std::move(order)) {  // (n, 3), (n,)
    for (auto* row : {&x, &y, &z}) row->reserve(index.size());
    for (const int32_t i : index) {
      x.push_back(points[i * int64_t(3)]);
      y.push_back(points[i * int64_t(3) + 1]);
      z.push_back(points[i * int64_t(3) + 2]);
    }
  }
  PointRows<T> rows() const { return {x.data(), y.data(), z.data(), index.data()}; }
};

// Writes the indices of those of points [begin, end) that are nearer than the root of `reach` to q, and returns their
// number; stops when there are at least `enough`. Room for `enough` + kBlock is needed.
constexpr int64_t kBlock = 64;
template <typename T>
[[gnu::always_inline]] inline int64_t collect_near(const PointRows<T>& p, int64_t begin, int64_t end, const T* q,
                                                   T reach, int64_t enough, int32_t* out) {
  const T qx = q[0], qy = q[1], qz = q[2];
  int64_t found = 0;
  for (int64_t first = begin; first < end && found < enough; first += kBlock) {
    const int64_t size = std::min(kBlock, end - first);
    const T *x = p.x + first, *y = p.y + first, *z = p.z + first;
    alignas(8) uint8_t near[kBlock] = {};
    for (int64_t k = 0; k < size; ++k) near[k] = squared_norm(qx - x[k], qy - y[k], qz - z[k]) < reach;
    for (int64_t eight = 0; eight < size; eight += 8) {
      uint64_t any;
      std::memcpy(&any, near + eight, 8);
      for (; any != 0; any &= any - 1) out[found++] = p.index[first + eight + std::countr_zero(any) / 8];
    }
  }
  return found;
}

PCDET_WIDE int64_t collect_in_ball(const PointRows<float>& p, int64_t begin, int64_t end, const float* q, float reach,
                                   int64_t enough, int32_t* out) {
  return collect_near(p, begin, end, q, reach, enough, out);
}
PCDET_WIDE int64_t collect_in_ball(const PointRows<double>& p, int64_t begin, int64_t end, const double* q,
                                   double reach, int64_t enough, int32_t* out) {
  return collect_near(p, begin, end, q, reach, enough, out);
}

// Cubic cells over the points' upright box, x fastest, at least a radius wide and at most a few for each point.
class BallGrid {
 public:
  template <typename T>
  BallGrid(const T* points, int64_t n, double radius) {  // (n, 3), n > 0
    std::array<double, 3> high;
    for (int a = 0; a < 3; ++a) low_[a] = high[a] = points[a];
    for (int64_t i = 0; i < n; ++i)
      for (int a = 0; a < 3; ++a) {
        low_[a] = std::min<double>(low_[a], points[i * 3 + a]);
        high[a] = std::max<double>(high[a], points[i * 3 + a]);
      }
    const double most_cells = std::min(4.0 * static_cast<double>(n), 1073741824.0);
    for (double width = radius;; width *= 1.2) {
      inverse_ = 1 / width;
      double cells = 1;
      for (int a = 0; a < 3; ++a) cells *= std::floor((high[a] - low_[a]) * inverse_) + 1;
      if (cells <= most_cells) break;
    }
    for (int a = 0; a < 3; ++a) size_[a] = static_cast<int64_t>((high[a] - low_[a]) * inverse_) + 1;
    begin_.assign(size_[0] * size_[1] * size_[2] + 1, 0);
    std::vector<int32_t> cell(n);
    for (int64_t i = 0; i < n; ++i) {
      const T* p = points + i * 3;
      cell[i] = static_cast<int32_t>((step(p[2], 2) * size_[1] + step(p[1], 1)) * size_[0] + step(p[0], 0));
      ++begin_[cell[i] + 1];
    }
    std::partial_sum(begin_.begin(), begin_.end(), begin_.begin());
    order_.resize(n);
    std::vector<int32_t> next(begin_.begin(), begin_.end() - 1);
    for (int64_t i = 0; i < n; ++i) order_[next[cell[i]]++] = static_cast<int32_t>(i);
  }

  const std::vector<int32_t>& order() const { return order_; }  // (n,) points cell by cell

  // Calls f(begin, end) for the runs of `order` that hold every point within `reach` of q along each axis.
  template <typename T, typename F>
  void for_each_run(const T* q, double reach, F f) const {
    int64_t from[3], to[3];
    for (int a = 0; a < 3; ++a) {
      const double first = (q[a] - reach - low_[a]) * inverse_, last = (q[a] + reach - low_[a]) * inverse_;
      if (last < 0 || first >= static_cast<double>(size_[a])) return;
      from[a] = static_cast<int64_t>(std::max(first, 0.0));
      to[a] = static_cast<int64_t>(std::min(last, static_cast<double>(size_[a] - 1)));
    }
    for (int64_t z = from[2]; z <= to[2]; ++z)
      for (int64_t y = from[1]; y <= to[1]; ++y) {
        const int64_t row = (z * size_[1] + y) * size_[0];
        f(int64_t(begin_[row + from[0]]), int64_t(begin_[row + to[0] + 1]));
      }
  }

 private:
  int64_t step(double p, int axis) const { return static_cast<int64_t>((p - low_[axis]) * inverse_); }

  std::array<double, 3> low_;
  std::array<int64_t, 3> size_;
  double inverse_;
  std::vector<int32_t> begin_, order_;  // (cells + 1,), (n,)
};

// Picks the smallest of many indices by a bit for each point; few are sorted.
class SmallestFirst {
 public:
  explicit SmallestFirst(int64_t n) : bits_((n + 63) / 64, 0) {}

  void order(int32_t* found, int64_t count, int64_t wanted) {
    constexpr int64_t kFewToSort = 40;
    if (count <= kFewToSort) {
      std::sort(found, found + count);
      return;
    }
    int64_t low = std::numeric_limits<int64_t>::max(), taken = 0;
    for (int64_t k = 0; k < count; ++k) {
      const int64_t word = found[k] >> 6;
      bits_[word] |= uint64_t(1) << (found[k] & 63);
      low = std::min(low, word);
    }
    left_.assign(found, found + count);
    for (int64_t word = low; taken < std::min(count, wanted); ++word)
      for (uint64_t rest = bits_[word]; rest != 0 && taken < wanted; rest &= rest - 1)
        found[taken++] = static_cast<int32_t>(word * 64 + std::countr_zero(rest));
    for (const int32_t i : left_) bits_[i >> 6] = 0;
  }

 private:
  std::vector<uint64_t> bits_;
  std::vector<int32_t> left_;
};

template <typename T>
struct BallSearch {
  T reach2;
  double reach;  // a little more, for the cells
  int64_t nsample;
  BallGrid grid;
  PointColumns<T> by_row, by_cell;

  BallSearch(const T* points, int64_t n, double radius, int64_t nsample)
      : reach2(T(radius) * T(radius)),
        reach(radius * (1 + 1e-5)),
        nsample(nsample),
        grid(points, n, reach),
        by_row(points, rows(n)),
        by_cell(points, grid.order()) {}

  // Writes the indices, ascending, of the first up to nsample points in the ball, and returns their number.
  int64_t find(const T* q, int32_t* found, SmallestFirst& smallest) const {
    const auto n = static_cast<int64_t>(by_row.index.size());
    int64_t candidates = 0;
    grid.for_each_run(q, reach, [&](int64_t begin, int64_t end) { candidates += end - begin; });
    if (candidates == 0) return 0;
    // About a quarter of the candidates are hits; walking from the start then takes nsample * n / hits steps.
    if (candidates / 4 > nsample && double(candidates) * double(candidates) > 4.0 * double(nsample) * double(n)) {
      return std::min(collect_in_ball(by_row.rows(), 0, n, q, reach2, nsample, found), nsample);
    }
    int64_t count = 0;
    grid.for_each_run(q, reach, [&](int64_t begin, int64_t end) {
      count += collect_in_ball(by_cell.rows(), begin, end, q, reach2, n, found + count);
    });
    smallest.order(found, count, nsample);
    return std::min(count, nsample);
  }

 private:
  static std::vector<int32_t> rows(int64_t n) {
    std::vector<int32_t> all(n);
    std::iota(all.begin(), all.end(), 0);
    return all;
  }
};

struct CpuBallQuery {
  template <typename T>
  static void find_in_balls(const at::Tensor& xyz, const at::Tensor& new_xyz, double radius, int64_t nsample,
                            int32_t* idx) {
    constexpr int64_t kCentresPerThread = 8192;  // of 0.1 to 0.3 us each
    const int64_t n = xyz.size(1), m = new_xyz.size(1);
    for (int64_t frame = 0; frame < xyz.size(0); ++frame) {
      const BallSearch<T> search(xyz.const_data_ptr<T>() + frame * n * 3, n, radius, nsample);
      const T* centres = new_xyz.const_data_ptr<T>() + frame * m * 3;
      at::parallel_for(0, m, kCentresPerThread, [&](int64_t begin, int64_t end) {
        std::vector<int32_t> found(n + kBlock);
        SmallestFirst smallest(n);
        for (int64_t i = begin; i < end; ++i) {
          const int64_t count = search.find(centres + i * 3, found.data(), smallest);
          int32_t* out = idx + (frame * m + i) * nsample;
          std::copy_n(found.begin(), count, out);
          std::fill(out + count, out + nsample, count > 0 ? found[0] : 0);
        }
      });
    }
  }
};

TORCH_LIBRARY_IMPL(pcdet, CPU, m) { register_ball_query<CpuBallQuery>(m); }

}  // namespace pcdet::PCDET_BACKEND
