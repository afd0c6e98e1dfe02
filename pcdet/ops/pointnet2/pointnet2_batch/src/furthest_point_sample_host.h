// The op's host function, a template over its backend: a struct with
//   sample_frames<T>(xyz, npoint, picks)   fills picks (B, npoint), which is not empty.
#pragma once

#include "point_distance.h"

namespace pcdet::PCDET_BACKEND {

template <typename Backend>
at::Tensor furthest_point_sample(const at::Tensor& xyz, int64_t npoint) {
  check_point_sets("xyz", xyz);
  TORCH_CHECK_VALUE(npoint >= 0 && npoint <= std::numeric_limits<int32_t>::max(), "npoint must be in [0, 2^31), got ",
                    npoint);
  const int64_t frames = xyz.size(0), n = xyz.size(1);
  TORCH_CHECK_VALUE(n > 0 || npoint == 0 || frames == 0,
                    "xyz must hold at least one point a frame to sample from, got ", xyz.sizes());
  const DeviceGuard guard(xyz.device());
  const at::Tensor points = xyz.contiguous();
  check_coordinates("xyz", points);
  at::Tensor picks = at::empty({frames, npoint}, points.options().dtype(at::kInt));
  if (picks.numel() == 0) return picks;
  AT_DISPATCH_FLOATING_TYPES(points.scalar_type(), "furthest_point_sample", [&] {
    Backend::template sample_frames<scalar_t>(points, npoint, picks.mutable_data_ptr<int32_t>());
  });
  return picks;
}

template <typename Backend>
void register_furthest_point_sample(torch::Library& m) {
  m.impl("furthest_point_sample", &furthest_point_sample<Backend>);
}

}  // namespace pcdet::PCDET_BACKEND
