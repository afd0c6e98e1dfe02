// Picking and weighting columns of features, and the way back: host functions, templates over their backend, a struct
// with
//   scatter_rows(idx, add, frames)   adds every entry of idx (B, E) to add.out, as AddColumn says.
#pragma once

#include "gather_kernels.h"

namespace pcdet::PCDET_BACKEND {

inline void check_columns(const char* name, const at::Tensor& features) {
  TORCH_CHECK_VALUE(features.dim() == 3, name, " must have shape (B, C, N), got ", features.sizes());
  check_features(name, features);
}

// (B, C, N) features, (B, M) idx -> (B, C, M).
template <typename Backend>
at::Tensor gather_points(const at::Tensor& features, const at::Tensor& idx) {
  check_columns("features", features);
  TORCH_CHECK_VALUE(idx.dim() == 2 && idx.size(0) == features.size(0),
                    "idx must have shape (B, M) with B = ", features.size(0), ", got ", idx.sizes());
  check_same_device("features", features, "idx", idx);
  const DeviceGuard guard(features.device());
  const at::Tensor f = features.contiguous(), rows = idx.contiguous();
  const int64_t channels = f.size(1), n = f.size(2), m = rows.size(1);
  check_rows("idx", rows, n);
  at::Tensor out = at::empty({f.size(0), channels, m}, f.options());
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, f.scalar_type(), "gather_points", [&] {
    AT_DISPATCH_INDEX_TYPES(rows.scalar_type(), "gather_points_idx", [&] {
      for_each_pair(f.size(0) * channels, m,
                    PickColumn<scalar_t, index_t>{f.const_data_ptr<scalar_t>(), rows.const_data_ptr<index_t>(),
                                                  out.mutable_data_ptr<scalar_t>(), channels, n, m});
    });
  });
  return out;
}

// The type in which sums are formed: half precision is widened, and the result narrowed again.
inline at::ScalarType sum_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// (B, C, M) grad, (B, E) idx, optional (B, E) weight, E = M * per_column -> (B, C, num_points).
template <typename Backend>
at::Tensor scatter(const at::Tensor& grad, const at::Tensor& idx, const at::Tensor* weight, int64_t per_column,
                   int64_t num_points) {
  check_columns("grad", grad);
  TORCH_CHECK_VALUE(num_points >= 0, "num_points must not be negative, got ", num_points);
  TORCH_CHECK_VALUE(idx.size(0) == grad.size(0) && idx.size(1) == grad.size(2) * per_column,
                    "idx must have an entry for each column of grad ", grad.sizes(), ", got ", idx.sizes());
  const DeviceGuard guard(grad.device());
  const at::Tensor g = grad.contiguous().to(sum_type(grad)), rows = idx.contiguous();
  check_rows("idx", rows, num_points);
  at::Tensor out = at::zeros({g.size(0), g.size(1), num_points}, g.options());
  if (out.numel() == 0 || g.numel() == 0) return out.to(grad.scalar_type());
  AT_DISPATCH_FLOATING_TYPES(g.scalar_type(), "scatter", [&] {
    const at::Tensor w = weight ? weight->contiguous().to(g.scalar_type()) : at::Tensor();
    AT_DISPATCH_INDEX_TYPES(rows.scalar_type(), "scatter_idx", [&] {
      Backend::scatter_rows(
          rows,
          AddColumn<scalar_t, index_t>{g.const_data_ptr<scalar_t>(), rows.const_data_ptr<index_t>(),
                                       weight ? w.const_data_ptr<scalar_t>() : nullptr,
                                       out.mutable_data_ptr<scalar_t>(), g.size(1), num_points, g.size(2), per_column},
          g.size(0));
    });
  });
  return out.to(grad.scalar_type());
}

template <typename Backend>
at::Tensor gather_points_backward(const at::Tensor& grad, const at::Tensor& idx, int64_t num_points) {
  TORCH_CHECK_VALUE(idx.dim() == 2, "idx must have shape (B, M), got ", idx.sizes());
  check_same_device("grad", grad, "idx", idx);
  return scatter<Backend>(grad, idx, nullptr, 1, num_points);
}

inline void check_three(const at::Tensor& features, const at::Tensor& idx, const at::Tensor& weight) {
  TORCH_CHECK_VALUE(idx.dim() == 3 && idx.size(2) == 3 && idx.size(0) == features.size(0),
                    "idx must have shape (B, N, 3) with B = ", features.size(0), ", got ", idx.sizes());
  TORCH_CHECK_VALUE(weight.sizes() == idx.sizes(), "weight must have the shape of idx ", idx.sizes(), ", got ",
                    weight.sizes());
  check_features("weight", weight);
  check_same_device("features", features, "idx", idx);
  check_same_device("features", features, "weight", weight);
}

// (B, C, M) features, (B, N, 3) idx and weight -> (B, C, N).
template <typename Backend>
at::Tensor three_interpolate(const at::Tensor& features, const at::Tensor& idx, const at::Tensor& weight) {
  check_columns("features", features);
  check_three(features, idx, weight);
  const DeviceGuard guard(features.device());
  const at::Tensor f = features.contiguous().to(sum_type(features)), rows = idx.contiguous();
  const at::Tensor w = weight.contiguous().to(f.scalar_type());
  const int64_t channels = f.size(1), m = f.size(2), n = rows.size(1);
  check_rows("idx", rows, m);
  at::Tensor out = at::empty({f.size(0), channels, n}, f.options());
  AT_DISPATCH_FLOATING_TYPES(f.scalar_type(), "three_interpolate", [&] {
    AT_DISPATCH_INDEX_TYPES(rows.scalar_type(), "three_interpolate_idx", [&] {
      for_each_pair(f.size(0) * channels, n,
                    BlendThree<scalar_t, index_t>{f.const_data_ptr<scalar_t>(), rows.const_data_ptr<index_t>(),
                                                  w.const_data_ptr<scalar_t>(), out.mutable_data_ptr<scalar_t>(),
                                                  channels, m, n});
    });
  });
  return out.to(features.scalar_type());
}

template <typename Backend>
at::Tensor three_interpolate_backward(const at::Tensor& grad, const at::Tensor& idx, const at::Tensor& weight,
                                      int64_t num_points) {
  check_columns("grad", grad);
  check_three(grad, idx, weight);
  const at::Tensor flat_weight = weight.contiguous().view({weight.size(0), -1});
  return scatter<Backend>(grad, idx.contiguous().view({idx.size(0), -1}), &flat_weight, 3, num_points);
}

template <typename Backend>
void register_gather(torch::Library& m) {
  m.impl("gather_points", &gather_points<Backend>);
  m.impl("gather_points_backward", &gather_points_backward<Backend>);
  m.impl("three_interpolate", &three_interpolate<Backend>);
  m.impl("three_interpolate_backward", &three_interpolate_backward<Backend>);
}

}  // namespace pcdet::PCDET_BACKEND
