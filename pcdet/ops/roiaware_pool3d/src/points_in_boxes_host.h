// The two ops' host functions, templates over their backend: a struct with
//   fill_mask(points, num_points, boxes, num_boxes, mask)             fills mask (N, P);
//   fill_index(points, boxes, index, frames, num_points, num_boxes)   fills index (B, P).
// Neither is called for an empty result.
#pragma once

#include <pcdet/check.h>

#include "solid_box.h"

namespace pcdet::PCDET_BACKEND {

inline void check_points_and_boxes(const at::Tensor& points, const at::Tensor& boxes) {
  check_float("points", points);
  check_same_kind("points", points, "boxes", boxes);
}

template <typename Backend>
at::Tensor points_in_boxes_mask(const at::Tensor& points, const at::Tensor& boxes) {
  TORCH_CHECK_VALUE(points.dim() == 2 && points.size(1) == 3, "points must have shape (P, 3) [x, y, z], got ",
                    points.sizes());
  check_boxes("boxes", boxes);
  check_points_and_boxes(points, boxes);
  const DeviceGuard guard(points.device());
  const at::Tensor p = points.contiguous(), b = boxes.contiguous();
  check_finite_boxes("boxes", b);
  at::Tensor mask = at::empty({b.size(0), p.size(0)}, p.options().dtype(at::kInt));
  if (mask.numel() == 0) return mask;
  AT_DISPATCH_FLOATING_TYPES(p.scalar_type(), "points_in_boxes_mask", [&] {
    Backend::fill_mask(p.const_data_ptr<scalar_t>(), p.size(0), b.const_data_ptr<scalar_t>(), b.size(0),
                       mask.mutable_data_ptr<int32_t>());
  });
  return mask;
}

template <typename Backend>
at::Tensor points_in_boxes_index(const at::Tensor& points, const at::Tensor& boxes) {
  TORCH_CHECK_VALUE(points.dim() == 3 && points.size(2) == 3, "points must have shape (B, P, 3) [x, y, z], got ",
                    points.sizes());
  TORCH_CHECK_VALUE(boxes.dim() == 3 && boxes.size(2) == 7 && boxes.size(0) == points.size(0),
                    "boxes must have shape (B, T, 7) [x, y, z, dx, dy, dz, heading] with B = ", points.size(0),
                    ", got ", boxes.sizes());
  TORCH_CHECK_VALUE(boxes.size(1) <= std::numeric_limits<int32_t>::max(), "boxes must number fewer than 2^31 a frame");
  check_points_and_boxes(points, boxes);
  const DeviceGuard guard(points.device());
  const at::Tensor p = points.contiguous(), b = boxes.contiguous();
  check_finite_boxes("boxes", b);
  at::Tensor index = at::empty({p.size(0), p.size(1)}, p.options().dtype(at::kInt));
  if (index.numel() == 0) return index;
  AT_DISPATCH_FLOATING_TYPES(p.scalar_type(), "points_in_boxes_index", [&] {
    Backend::fill_index(p.const_data_ptr<scalar_t>(), b.const_data_ptr<scalar_t>(), index.mutable_data_ptr<int32_t>(),
                        p.size(0), p.size(1), b.size(1));
  });
  return index;
}

template <typename Backend>
void register_points_in_boxes(torch::Library& m) {
  m.impl("points_in_boxes_mask", &points_in_boxes_mask<Backend>);
  m.impl("points_in_boxes_index", &points_in_boxes_index<Backend>);
}

}  // namespace pcdet::PCDET_BACKEND
