// The op's host function, a template over its backend: a struct with
//   find_in_balls<T>(xyz, new_xyz, radius, nsample, idx)   fills idx (B, M, nsample), which is not empty.
#pragma once

#include "point_distance.h"

namespace pcdet::PCDET_BACKEND {

// (B, M, nsample) int32 rows of `xyz`.
template <typename Backend>
at::Tensor ball_query(const at::Tensor& xyz, const at::Tensor& new_xyz, double radius, int64_t nsample) {
  check_two_point_sets("xyz", xyz, "new_xyz", new_xyz);
  TORCH_CHECK_VALUE(radius > 0 && radius <= 1e12, "radius must be positive and at most 1e12, got ", radius);
  TORCH_CHECK_VALUE(nsample > 0 && nsample <= std::numeric_limits<int32_t>::max(),
                    "nsample must be positive and below 2^31, got ", nsample);
  check_has_points("xyz", xyz, new_xyz);
  const DeviceGuard guard(xyz.device());
  const at::Tensor points = xyz.contiguous(), centres = new_xyz.contiguous();
  check_coordinates("xyz", points);
  check_coordinates("new_xyz", centres);
  at::Tensor idx = at::empty({centres.size(0), centres.size(1), nsample}, points.options().dtype(at::kInt));
  if (idx.numel() == 0) return idx;
  AT_DISPATCH_FLOATING_TYPES(points.scalar_type(), "ball_query", [&] {
    Backend::template find_in_balls<scalar_t>(points, centres, radius, nsample, idx.mutable_data_ptr<int32_t>());
  });
  return idx;
}

template <typename Backend>
void register_ball_query(torch::Library& m) {
  m.impl("ball_query", &ball_query<Backend>);
}

}  // namespace pcdet::PCDET_BACKEND
