// Pooling of points into the voxels of regions of interest: host functions, templates over their backend: a struct
// with
//   all_below(voxel, num_voxels)   whether every entry of a contiguous voxel (N, P) is; true where nobody may look;
//   assign_voxels(assign, rois)    fills assign.voxel and assign.count;
//   pool_rois(pool, rois)          fills pool.pooled and pool.argmax;
//   spread_gradients(collect)      fills collect.out.
#pragma once

#include <ATen/ops/full.h>
#include <pcdet/check.h>

#include "roi_pooling.h"

namespace pcdet::PCDET_BACKEND {

// voxel (N, P) int32: the point's voxel in the roi, -1 for none or a full one; count (N, V) int32.
template <typename Backend>
std::tuple<at::Tensor, at::Tensor> roiaware_assign(const at::Tensor& rois, const at::Tensor& points,
                                                   at::IntArrayRef out_size, int64_t most_points) {
  check_boxes("rois", rois);
  TORCH_CHECK_VALUE(points.dim() == 2 && points.size(1) == 3, "points must have shape (P, 3) [x, y, z], got ",
                    points.sizes());
  check_same_kind("rois", rois, "points", points);
  TORCH_CHECK_VALUE(out_size.size() == 3 && *std::min_element(out_size.begin(), out_size.end()) > 0 &&
                        *std::max_element(out_size.begin(), out_size.end()) <= 1024,
                    "out_size must be three numbers of voxels in [1, 1024], got ", out_size);
  TORCH_CHECK_VALUE(most_points > 0, "most_points must be positive, got ", most_points);
  TORCH_CHECK_VALUE(points.size(0) < std::numeric_limits<int32_t>::max(), "points must number fewer than 2^31, got ",
                    points.size(0));
  const DeviceGuard guard(rois.device());
  const at::Tensor r = rois.contiguous(), p = points.contiguous();
  check_finite_boxes("rois", r);
  const auto ints = r.options().dtype(at::kInt);
  at::Tensor voxel = at::empty({r.size(0), p.size(0)}, ints);
  at::Tensor count = at::zeros({r.size(0), out_size[0] * out_size[1] * out_size[2]}, ints);
  if (voxel.numel() == 0) return {voxel, count};
  AT_DISPATCH_FLOATING_TYPES(r.scalar_type(), "roiaware_assign", [&] {
    Backend::assign_voxels(AssignVoxels<scalar_t>{r.const_data_ptr<scalar_t>(), p.const_data_ptr<scalar_t>(),
                                                  voxel.mutable_data_ptr<int32_t>(), count.mutable_data_ptr<int32_t>(),
                                                  p.size(0), static_cast<int32_t>(out_size[0]),
                                                  static_cast<int32_t>(out_size[1]), static_cast<int32_t>(out_size[2]),
                                                  static_cast<int32_t>(std::min<int64_t>(most_points, 1 << 30))},
                           r.size(0));
  });
  return {voxel, count};
}

inline void check_assignment(const at::Tensor& features, const at::Tensor& voxel, const at::Tensor& count) {
  TORCH_CHECK_VALUE(voxel.dim() == 2 && voxel.scalar_type() == at::kInt && count.dim() == 2 &&
                        count.scalar_type() == at::kInt && count.size(0) == voxel.size(0),
                    "voxel (N, P) and count (N, V) must be what roiaware_assign returned, got ", voxel.sizes(), " and ",
                    count.sizes());
  check_same_device("features", features, "voxel", voxel);
  check_same_device("features", features, "count", count);
}

// pooled (N, V, C) and, for maxima, argmax (N, V, C) int32, -1 where the voxel is empty.
template <typename Backend>
std::tuple<at::Tensor, at::Tensor> roiaware_pool3d(const at::Tensor& features, const at::Tensor& voxel,
                                                   const at::Tensor& count, bool use_max) {
  TORCH_CHECK_VALUE(features.dim() == 2 && voxel.dim() == 2 && features.size(0) == voxel.size(1),
                    "features must have shape (P, C), a row for each point of voxel ", voxel.sizes(), ", got ",
                    features.sizes());
  check_float("features", features);
  check_assignment(features, voxel, count);
  const DeviceGuard guard(features.device());
  const at::Tensor f = features.contiguous(), v = voxel.contiguous(), n = count.contiguous();
  const int64_t rois = v.size(0), voxels = n.size(1), channels = f.size(1);
  TORCH_CHECK_VALUE(Backend::all_below(v, voxels), "voxel must lie below ", voxels, ", but holds more");
  at::Tensor pooled = at::zeros({rois, voxels, channels}, f.options());
  at::Tensor argmax = use_max ? at::full({rois, voxels, channels}, -1, v.options()) : at::empty({0}, v.options());
  if (pooled.numel() == 0) return {pooled, argmax};
  AT_DISPATCH_FLOATING_TYPES(f.scalar_type(), "roiaware_pool3d", [&] {
    Backend::pool_rois(
        PoolRoi<scalar_t>{f.const_data_ptr<scalar_t>(), v.const_data_ptr<int32_t>(), n.const_data_ptr<int32_t>(),
                          pooled.mutable_data_ptr<scalar_t>(), use_max ? argmax.mutable_data_ptr<int32_t>() : nullptr,
                          v.size(1), voxels, channels},
        rois);
  });
  return {pooled, argmax};
}

// (N, V, C) grad -> (P, C). Every point collects its own sum over the rois, so nothing depends on the threads' order.
template <typename Backend>
at::Tensor roiaware_pool3d_backward(const at::Tensor& grad, const at::Tensor& voxel, const at::Tensor& count,
                                    const at::Tensor& argmax, bool use_max) {
  TORCH_CHECK_VALUE(
      grad.dim() == 3 && count.dim() == 2 && grad.size(0) == count.size(0) && grad.size(1) == count.size(1),
      "grad must have shape (N, V, C) with (N, V) of count ", count.sizes(), ", got ", grad.sizes());
  check_float("grad", grad);
  check_assignment(grad, voxel, count);
  TORCH_CHECK_VALUE(!use_max || (argmax.sizes() == grad.sizes() && argmax.scalar_type() == at::kInt),
                    "argmax must be int32 of the shape of grad ", grad.sizes(), ", got ", argmax.scalar_type(), " ",
                    argmax.sizes());
  check_same_device("grad", grad, "argmax", argmax);
  const DeviceGuard guard(grad.device());
  const at::Tensor g = grad.contiguous(), v = voxel.contiguous(), n = count.contiguous(), a = argmax.contiguous();
  TORCH_CHECK_VALUE(Backend::all_below(v, n.size(1)), "voxel must lie below ", n.size(1), ", but holds more");
  at::Tensor out = at::zeros({v.size(1), g.size(2)}, g.options());
  if (out.numel() == 0) return out;
  AT_DISPATCH_FLOATING_TYPES(g.scalar_type(), "roiaware_pool3d_backward", [&] {
    Backend::spread_gradients(
        CollectGradient<scalar_t>{g.const_data_ptr<scalar_t>(), v.const_data_ptr<int32_t>(),
                                  n.const_data_ptr<int32_t>(), use_max ? a.const_data_ptr<int32_t>() : nullptr,
                                  out.mutable_data_ptr<scalar_t>(), v.size(0), v.size(1), n.size(1), g.size(2)});
  });
  return out;
}

template <typename Backend>
void register_roiaware_pool3d(torch::Library& m) {
  m.impl("roiaware_assign", &roiaware_assign<Backend>);
  m.impl("roiaware_pool3d", &roiaware_pool3d<Backend>);
  m.impl("roiaware_pool3d_backward", &roiaware_pool3d_backward<Backend>);
}

}  // namespace pcdet::PCDET_BACKEND
