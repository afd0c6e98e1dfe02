// Greedy non-maximum suppression on the CPU: each box in score order meets only the kept boxes near it.
#include <vector>

#include "ground_boxes.h"
#include "nms_host.h"

namespace pcdet::PCDET_BACKEND {

// Square cells over the boxes' centres, wide enough that boxes which touch lie in neighbouring cells.
template <typename T>
struct CentreGrid {
  T x_low, y_low, inverse_cell;
  int64_t columns, rows;

  CentreGrid(const GroundBox<T>* boxes, int64_t n) {
    T x_high = boxes[0].x, y_high = boxes[0].y, widest = 0;
    x_low = x_high, y_low = y_high;
    for (int64_t i = 0; i < n; ++i) {
      x_low = std::min(x_low, boxes[i].x);
      x_high = std::max(x_high, boxes[i].x);
      y_low = std::min(y_low, boxes[i].y);
      y_high = std::max(y_high, boxes[i].y);
      widest = std::max(widest, boxes[i].radius);
    }
    constexpr T kSlack = T(1.01);  // more than the rounding of a cell's number can amount to
    const T most_cells_a_side = std::sqrt(static_cast<T>(4 * n)) + T(1);
    const T extent = std::max(x_high - x_low, y_high - y_low);
    const T cell = std::max({T(2) * widest * kSlack, extent / most_cells_a_side, std::numeric_limits<T>::min()});
    inverse_cell = T(1) / cell;
    columns = column(x_high) + 1;
    rows = row(y_high) + 1;
  }
  int64_t column(T x) const { return static_cast<int64_t>((x - x_low) * inverse_cell); }
  int64_t row(T y) const { return static_cast<int64_t>((y - y_low) * inverse_cell); }
};

// The kept boxes, cell by cell. Every cell has room for all boxes whose centre it holds. The circles around them stand
// in arrays of their own, so that the search for possible suppressors runs in vector registers.
template <typename T>
class KeptBoxes {
 public:
  KeptBoxes(const GroundBox<T>* boxes, int64_t n) : grid_(boxes, n) {
    begin_.assign(grid_.columns * grid_.rows + 1, 0);
    for (int64_t i = 0; i < n; ++i) ++begin_[cell_of(boxes[i]) + 1];
    for (size_t c = 1; c < begin_.size(); ++c) begin_[c] += begin_[c - 1];
    end_.assign(begin_.begin(), begin_.end() - 1);
    x_.resize(n), y_.resize(n), radius_.resize(n), box_.resize(n);
  }

  void add(const GroundBox<T>& box) {
    const int64_t at = end_[cell_of(box)]++;
    x_[at] = box.x, y_[at] = box.y, radius_[at] = box.radius, box_[at] = &box;
  }

  template <bool kRotated>
  bool suppress(const GroundBox<T>& box, T thresh) const {
    const int64_t column = grid_.column(box.x), row = grid_.row(box.y);
    for (int64_t r = std::max<int64_t>(row - 1, 0); r <= std::min(row + 1, grid_.rows - 1); ++r)
      for (int64_t c = std::max<int64_t>(column - 1, 0); c <= std::min(column + 1, grid_.columns - 1); ++c)
        if (suppress_from<kRotated>(r * grid_.columns + c, box, thresh)) return true;
    return false;
  }

 private:
  static constexpr int64_t kBlock = 64;  // circles tested together

  int64_t cell_of(const GroundBox<T>& box) const { return grid_.row(box.y) * grid_.columns + grid_.column(box.x); }

  template <bool kRotated>
  bool suppress_from(int64_t cell, const GroundBox<T>& box, T thresh) const {
    for (int64_t begin = begin_[cell]; begin < end_[cell]; begin += kBlock) {
      const int64_t size = std::min(kBlock, end_[cell] - begin);
      const T *x = x_.data() + begin, *y = y_.data() + begin, *radius = radius_.data() + begin;
      bool near[kBlock];
      for (int64_t k = 0; k < size; ++k) {
        const T dx = x[k] - box.x, dy = y[k] - box.y, reach = radius[k] + box.radius;
        near[k] = dx * dx + dy * dy < reach * reach;
      }
      for (int64_t k = 0; k < size; ++k)
        if (near[k] && suppresses<kRotated>(*box_[begin + k], box, thresh)) return true;
    }
    return false;
  }

  CentreGrid<T> grid_;
  std::vector<int64_t> begin_, end_;      // (cells + 1,), (cells,): where a cell's kept boxes stand
  std::vector<T> x_, y_, radius_;         // (N,)
  std::vector<const GroundBox<T>*> box_;  // (N,)
};

struct CpuNms {
  template <bool kRotated, typename T>
  static void suppress(const at::Tensor& boxes, const at::Tensor&, const at::Tensor& order, T thresh, int64_t* keep,
                       int64_t* count) {
    at::Tensor ground = ground_boxes<T>(boxes);
    const GroundBox<T>* prepared = as_ground_boxes<T>(ground);
    const int64_t* best = order.const_data_ptr<int64_t>();
    const int64_t n = boxes.size(0);
    KeptBoxes<T> kept(prepared, n);
    for (int64_t i = 0; i < n; ++i) {
      const GroundBox<T>& box = prepared[best[i]];
      if (kept.template suppress<kRotated>(box, thresh)) continue;
      keep[(*count)++] = best[i];
      kept.add(box);
    }
  }
};

TORCH_LIBRARY_IMPL(pcdet, CPU, m) { register_nms<CpuNms>(m); }

}  // namespace pcdet::PCDET_BACKEND
