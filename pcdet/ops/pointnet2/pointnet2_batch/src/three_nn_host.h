// The op's host function, a template over its backend: a struct with
//   find_three<T>(unknown, known, dist2, idx)   fills dist2 and idx (B, N, 3), which are not empty.
#pragma once

#include "point_distance.h"

namespace pcdet::PCDET_BACKEND {

// Squared distances (B, N, 3), ascending, and rows of `known` (B, N, 3) int32.
template <typename Backend>
std::tuple<at::Tensor, at::Tensor> three_nn(const at::Tensor& unknown, const at::Tensor& known) {
  check_two_point_sets("unknown", unknown, "known", known);
  check_has_points("known", known, unknown);
  const DeviceGuard guard(unknown.device());
  const at::Tensor u = unknown.contiguous(), k = known.contiguous();
  check_coordinates("unknown", u);
  check_coordinates("known", k);
  at::Tensor dist2 = at::empty(u.sizes(), u.options()), idx = at::empty(u.sizes(), u.options().dtype(at::kInt));
  if (u.numel() == 0) return {dist2, idx};
  AT_DISPATCH_FLOATING_TYPES(u.scalar_type(), "three_nn", [&] {
    Backend::template find_three<scalar_t>(u, k, dist2.mutable_data_ptr<scalar_t>(), idx.mutable_data_ptr<int32_t>());
  });
  return {dist2, idx};
}

template <typename Backend>
void register_three_nn(torch::Library& m) {
  m.impl("three_nn", &three_nn<Backend>);
}

}  // namespace pcdet::PCDET_BACKEND
