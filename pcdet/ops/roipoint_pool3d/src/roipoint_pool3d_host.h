// The op's host function, a template over its backend: a struct with
//   choose_points(points, boxes, frames, n, num_boxes, room, chosen, num_found)   writes the first up to `room` rows
//     of the points in each box to chosen (B * M, room), and their number to num_found (B * M,).
#pragma once

#include <pcdet/check.h>

#include "../../roiaware_pool3d/src/solid_box.h"

namespace pcdet::PCDET_BACKEND {

template <typename T>
struct CopyChosen {
  const T *points, *features;  // (B, N, 3), (B, N, C)
  const int32_t* chosen;       // (B * M, room) rows, ascending
  const int32_t* num_found;    // (B * M,), at most room
  T* pooled;                   // (B * M * num, 3 + C)
  int64_t n, channels, boxes, num, room;
  PCDET_HD void operator()(int64_t slot, int64_t c) const {
    const int64_t box = slot / num, found = num_found[box];
    T value = 0;
    if (found > 0) {
      const int64_t point = box / boxes * n + chosen[box * room + slot % num % found];
      value = c < 3 ? points[point * 3 + c] : features[point * channels + c - 3];
    }
    pooled[slot * (3 + channels) + c] = value;
  }
};

struct MarkEmpty {
  const int32_t* num_found;
  int32_t* empty;
  PCDET_HD void operator()(int64_t box) const { empty[box] = num_found[box] == 0; }
};

inline void check_roipoint_pool3d(const at::Tensor& points, const at::Tensor& features, const at::Tensor& boxes,
                                  int64_t num_sampled_points) {
  TORCH_CHECK_VALUE(points.dim() == 3 && points.size(2) == 3, "points must have shape (B, N, 3) [x, y, z], got ",
                    points.sizes());
  check_float("points", points);
  TORCH_CHECK_VALUE(features.dim() == 3 && features.size(0) == points.size(0) && features.size(1) == points.size(1),
                    "features must have shape (B, N, C) with (B, N) = (", points.size(0), ", ", points.size(1),
                    "), got ", features.sizes());
  TORCH_CHECK_VALUE(boxes.dim() == 3 && boxes.size(2) == 7 && boxes.size(0) == points.size(0),
                    "boxes must have shape (B, M, 7) [x, y, z, dx, dy, dz, heading] with B = ", points.size(0),
                    ", got ", boxes.sizes());
  TORCH_CHECK_VALUE(points.size(1) < std::numeric_limits<int32_t>::max(),
                    "points must number fewer than 2^31 a frame, got ", points.size(1));
  TORCH_CHECK_VALUE(num_sampled_points > 0, "num_sampled_points must be positive, got ", num_sampled_points);
  check_same_kind("points", points, "features", features);
  check_same_kind("points", points, "boxes", boxes);
}

// pooled (B, M, num, 3 + C) and empty (B, M) int32.
template <typename Backend>
std::tuple<at::Tensor, at::Tensor> roipoint_pool3d(const at::Tensor& points, const at::Tensor& features,
                                                   const at::Tensor& boxes, int64_t num_sampled_points) {
  check_roipoint_pool3d(points, features, boxes, num_sampled_points);
  const DeviceGuard guard(points.device());
  const at::Tensor p = points.contiguous(), f = features.contiguous(), b = boxes.contiguous();
  check_finite_boxes("boxes", b);
  const int64_t frames = b.size(0), m = b.size(1), n = p.size(1), channels = f.size(2);
  const auto ints = b.options().dtype(at::kInt);
  at::Tensor pooled = at::empty({frames, m, num_sampled_points, 3 + channels}, p.options());
  at::Tensor empty = at::empty({frames, m}, ints);
  if (empty.numel() == 0) return {pooled, empty};
  const int64_t room = std::min(num_sampled_points, std::max<int64_t>(n, 1));
  at::Tensor chosen = at::empty({frames * m, room}, ints), num_found = at::empty({frames * m}, ints);
  AT_DISPATCH_FLOATING_TYPES(p.scalar_type(), "roipoint_pool3d", [&] {
    Backend::choose_points(p.const_data_ptr<scalar_t>(), b.const_data_ptr<scalar_t>(), frames, n, m, room,
                           chosen.mutable_data_ptr<int32_t>(), num_found.mutable_data_ptr<int32_t>());
    for_each(frames * m, MarkEmpty{num_found.const_data_ptr<int32_t>(), empty.mutable_data_ptr<int32_t>()});
    for_each_pair(frames * m * num_sampled_points, 3 + channels,
                  CopyChosen<scalar_t>{p.const_data_ptr<scalar_t>(), f.const_data_ptr<scalar_t>(),
                                       chosen.const_data_ptr<int32_t>(), num_found.const_data_ptr<int32_t>(),
                                       pooled.mutable_data_ptr<scalar_t>(), n, channels, m, num_sampled_points, room});
  });
  return {pooled, empty};
}

template <typename Backend>
void register_roipoint_pool3d(torch::Library& m) {
  m.impl("roipoint_pool3d", &roipoint_pool3d<Backend>);
}

}  // namespace pcdet::PCDET_BACKEND
