// Reductions over groups of rows and the way back: host functions, templates over their backend, a struct with
// functions on pointers to contiguous tables with C channels. None of them is called without groups or channels.
//   sum(groups, src, channels, out): fills out (G, C) with sums of src (N, C);
//   largest(groups, src, channels, out, argmax): fills both (G, C), 0 and -1 for an empty group;
//   expand(groups, values, channels, out): values (G, C) to the rows of out (N, C), which is zero where none is
//   written; spread(grad, argmax, groups, channels, rows, out): grad (G, C) to out (N, C), zero at first, at rows
//   argmax (G, C); writes_all(groups): whether expand is known to write every row.
#pragma once

#include <array>

#include "row_groups.h"

namespace pcdet::PCDET_BACKEND {

inline void check_table(const char* name, const at::Tensor& table) {
  TORCH_CHECK_VALUE(table.dim() == 2, name, " must have shape (N, C), got ", table.sizes());
  check_features(name, table);
}

// The type in which sums are formed: half precision is widened, and the result narrowed again.
inline at::ScalarType wide_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

template <typename Backend>
at::Tensor scatter_sum(const at::Tensor& src, const std::optional<at::Tensor>& order, const at::Tensor& offsets) {
  check_table("src", src);
  const DeviceGuard guard(src.device());
  const GroupTensors tensors = checked_groups("src", src, src.size(0), order, offsets);
  const RowGroups groups = tensors.of(src.size(0));
  const at::Tensor rows = src.contiguous().to(wide_type(src));
  at::Tensor out = at::empty({groups.groups, src.size(1)}, rows.options());
  if (out.numel() == 0) return out.to(src.scalar_type());
  AT_DISPATCH_FLOATING_TYPES(rows.scalar_type(), "scatter_sum", [&] {
    Backend::sum(groups, rows.const_data_ptr<scalar_t>(), src.size(1), out.mutable_data_ptr<scalar_t>());
  });
  return out.to(src.scalar_type());
}

// Also the row that has each maximum, int32, the first of equals; -1 for an empty group.
template <typename Backend>
std::tuple<at::Tensor, at::Tensor> scatter_max(const at::Tensor& src, const std::optional<at::Tensor>& order,
                                               const at::Tensor& offsets) {
  check_table("src", src);
  const DeviceGuard guard(src.device());
  const GroupTensors tensors = checked_groups("src", src, src.size(0), order, offsets);
  const RowGroups groups = tensors.of(src.size(0));
  const at::Tensor rows = src.contiguous().to(wide_type(src));
  at::Tensor out = at::empty({groups.groups, src.size(1)}, rows.options());
  at::Tensor argmax = at::empty(out.sizes(), rows.options().dtype(at::kInt));
  if (out.numel() == 0) return {out.to(src.scalar_type()), argmax};
  AT_DISPATCH_FLOATING_TYPES(rows.scalar_type(), "scatter_max", [&] {
    Backend::largest(groups, rows.const_data_ptr<scalar_t>(), src.size(1), out.mutable_data_ptr<scalar_t>(),
                     argmax.mutable_data_ptr<int32_t>());
  });
  return {out.to(src.scalar_type()), argmax};
}

template <typename Backend>
at::Tensor scatter_max_backward(const at::Tensor& grad, const at::Tensor& argmax, int64_t num_rows) {
  check_table("grad", grad);
  TORCH_CHECK_VALUE(argmax.sizes() == grad.sizes(), "argmax must have the shape of grad ", grad.sizes(), ", got ",
                    argmax.sizes());
  TORCH_CHECK_VALUE(argmax.scalar_type() == at::kInt, "argmax must be int32, got ", argmax.scalar_type());
  check_same_device("grad", grad, "argmax", argmax);
  TORCH_CHECK_VALUE(num_rows >= 0, "num_rows must not be negative, got ", num_rows);
  const DeviceGuard guard(grad.device());
  const at::Tensor g = grad.contiguous(), rows = argmax.contiguous();
  at::Tensor out = at::zeros({num_rows, grad.size(1)}, grad.options());
  if (out.numel() == 0 || g.numel() == 0) return out;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, g.scalar_type(), "scatter_max_backward", [&] {
    Backend::spread(g.const_data_ptr<scalar_t>(), rows.const_data_ptr<int32_t>(), g.size(0), g.size(1), num_rows,
                    out.mutable_data_ptr<scalar_t>());
  });
  return out;
}

template <typename Backend>
at::Tensor expand_groups(const at::Tensor& values, const std::optional<at::Tensor>& order, const at::Tensor& offsets,
                         int64_t num_rows) {
  check_table("values", values);
  const DeviceGuard guard(values.device());
  const GroupTensors tensors = checked_groups("values", values, num_rows, order, offsets);
  const RowGroups groups = tensors.of(num_rows);
  TORCH_CHECK_VALUE(values.size(0) == groups.groups, "values must have a row for each of ", groups.groups,
                    " groups, got ", values.sizes());
  const at::Tensor v = values.contiguous();
  const std::array<int64_t, 2> shape{num_rows, values.size(1)};
  at::Tensor out =
      Backend::writes_all(groups) ? at::empty(shape, values.options()) : at::zeros(shape, values.options());
  if (out.numel() == 0 || v.numel() == 0) return out;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, v.scalar_type(), "expand_groups", [&] {
    Backend::expand(groups, v.const_data_ptr<scalar_t>(), v.size(1), out.mutable_data_ptr<scalar_t>());
  });
  return out;
}

template <typename Backend>
void register_scatter(torch::Library& m) {
  m.impl("scatter_sum", &scatter_sum<Backend>);
  m.impl("scatter_max", &scatter_max<Backend>);
  m.impl("scatter_max_backward", &scatter_max_backward<Backend>);
  m.impl("expand_groups", &expand_groups<Backend>);
}

}  // namespace pcdet::PCDET_BACKEND
