// Overlap and intersection over union of rotated boxes, for every pair of two sets or row by row.
#include <pcdet/check.h>

#include "ground_boxes.h"

namespace pcdet::PCDET_BACKEND {

struct OverlapBev {
  template <typename T>
  PCDET_HD T operator()(const GroundBox<T>& a, const GroundBox<T>& b) const {
    return overlap_bev(a, b);
  }
};

struct IouBev {
  template <typename T>
  PCDET_HD T operator()(const GroundBox<T>& a, const GroundBox<T>& b) const {
    return iou_bev(a, b);
  }
};

struct Iou3d {
  template <typename T>
  PCDET_HD T operator()(const GroundBox<T>& a, const GroundBox<T>& b) const {
    return iou_3d(a, b);
  }
};

template <typename T, typename Measure>
struct MeasurePairs {
  const GroundBox<T>*a, *b;  // (N,), (M,)
  T* out;                    // (N, M)
  int64_t num_b;
  PCDET_HD void operator()(int64_t i, int64_t j) const { out[i * num_b + j] = Measure()(a[i], b[j]); }
};

template <typename T, typename Measure>
struct MeasureRows {
  const GroundBox<T>*a, *b;  // (N,), (N,)
  T* out;                    // (N,)
  PCDET_HD void operator()(int64_t i) const { out[i] = Measure()(a[i], b[i]); }
};

inline void check_two_sets(const at::Tensor& boxes_a, const at::Tensor& boxes_b) {
  check_boxes("boxes_a", boxes_a);
  check_boxes("boxes_b", boxes_b);
  check_same_kind("boxes_a", boxes_a, "boxes_b", boxes_b);
}

template <typename Measure>
at::Tensor measure_pairs(const at::Tensor& boxes_a, const at::Tensor& boxes_b) {
  check_two_sets(boxes_a, boxes_b);
  const DeviceGuard guard(boxes_a.device());
  const at::Tensor a = boxes_a.contiguous(), b = boxes_b.contiguous();
  check_finite_boxes("boxes_a", a);
  check_finite_boxes("boxes_b", b);
  at::Tensor out = at::empty({a.size(0), b.size(0)}, a.options());
  AT_DISPATCH_FLOATING_TYPES(a.scalar_type(), "measure_pairs", [&] {
    at::Tensor ground_a = ground_boxes<scalar_t>(a), ground_b = ground_boxes<scalar_t>(b);
    for_each_pair(
        a.size(0), b.size(0),
        MeasurePairs<scalar_t, Measure>{as_ground_boxes<scalar_t>(ground_a), as_ground_boxes<scalar_t>(ground_b),
                                        out.mutable_data_ptr<scalar_t>(), b.size(0)});
  });
  return out;
}

template <typename Measure>
at::Tensor measure_rows(const at::Tensor& boxes_a, const at::Tensor& boxes_b) {
  check_two_sets(boxes_a, boxes_b);
  TORCH_CHECK_VALUE(boxes_a.size(0) == boxes_b.size(0), "boxes_a and boxes_b must have as many rows, got ",
                    boxes_a.sizes(), " and ", boxes_b.sizes());
  const DeviceGuard guard(boxes_a.device());
  const at::Tensor a = boxes_a.contiguous(), b = boxes_b.contiguous();
  check_finite_boxes("boxes_a", a);
  check_finite_boxes("boxes_b", b);
  at::Tensor out = at::empty({a.size(0)}, a.options());
  AT_DISPATCH_FLOATING_TYPES(a.scalar_type(), "measure_rows", [&] {
    at::Tensor ground_a = ground_boxes<scalar_t>(a), ground_b = ground_boxes<scalar_t>(b);
    for_each(a.size(0),
             MeasureRows<scalar_t, Measure>{as_ground_boxes<scalar_t>(ground_a), as_ground_boxes<scalar_t>(ground_b),
                                            out.mutable_data_ptr<scalar_t>()});
  });
  return out;
}

TORCH_LIBRARY_IMPL(pcdet, PCDET_DISPATCH_KEY, m) {
  m.impl("boxes_overlap_bev", &measure_pairs<OverlapBev>);
  m.impl("boxes_iou_bev", &measure_pairs<IouBev>);
  m.impl("boxes_iou3d", &measure_pairs<Iou3d>);
  m.impl("paired_boxes_iou3d", &measure_rows<Iou3d>);
}

}  // namespace pcdet::PCDET_BACKEND
