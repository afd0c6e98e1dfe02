// The edge convolution's host functions, templates over their backend: a struct with functions on pointers to
// contiguous tables, base (M, C) and query (G, C). None of them is called for an empty result.
//   gather_edges(neighbours, channels, base, query, relu, out): fills out (G, K, C);
//   gather_edges_backward(neighbours, centres, channels, base, query, grad, relu, grad_base, grad_query): grad (G, K,
//   C)
//     to gradients (M, C) and (G, C), which are zero at first;
//   largest_neighbours(neighbours, channels, base, out): fills out (G, C);
//   sum_edges(neighbours, channels, base, query, relu, sum, passing): fills both (G, C);
//   sum_edges_backward(centres, channels, base, query, grad, relu, out): grad (G, C) to out (M, C), zero at first;
//   edge_statistics(neighbours, channels, base, query, sum, counts, mean, variance): fills sum (G, C) and counts (G,),
//     and, if there are edges, mean and variance (C,).
#pragma once

#include "adjacency.h"

namespace pcdet::PCDET_BACKEND {

// (G, K, C) act(base[idx[i, k]] + query[i]); 0 where there is no neighbour.
template <typename Backend>
at::Tensor edge_gather(const at::Tensor& base, const at::Tensor& query, const at::Tensor& idx,
                       const std::optional<at::Tensor>&, const std::optional<at::Tensor>&, bool relu) {
  check_terms(base, query, idx);
  const DeviceGuard guard(base.device());
  const at::Tensor b = base.contiguous(), q = query.contiguous(), table = idx.contiguous();
  at::Tensor out = at::empty({idx.size(0), idx.size(1), base.size(1)}, base.options());
  if (out.numel() == 0) return out;
  AT_DISPATCH_FLOATING_TYPES(base.scalar_type(), "edge_gather", [&] {
    Backend::gather_edges(neighbours_of(table, b.size(0)), b.size(1), b.const_data_ptr<scalar_t>(),
                          q.const_data_ptr<scalar_t>(), relu, out.mutable_data_ptr<scalar_t>());
  });
  return out;
}

template <typename Backend>
std::tuple<at::Tensor, at::Tensor> edge_gather_backward(const at::Tensor& grad, const at::Tensor& base,
                                                        const at::Tensor& query, const at::Tensor& idx,
                                                        const at::Tensor& start, const at::Tensor& edge, bool relu) {
  check_terms(base, query, idx);
  check_transpose(idx, base.size(0), start, edge);
  check_same_kind("base", base, "grad", grad);
  TORCH_CHECK_VALUE(
      grad.dim() == 3 && grad.size(0) == idx.size(0) && grad.size(1) == idx.size(1) && grad.size(2) == base.size(1),
      "grad must have shape (", idx.size(0), ", ", idx.size(1), ", ", base.size(1), "), got ", grad.sizes());
  const DeviceGuard guard(base.device());
  const at::Tensor b = base.contiguous(), q = query.contiguous(), g = grad.contiguous(), table = idx.contiguous();
  const at::Tensor starts = start.contiguous(), edges = edge.contiguous();
  at::Tensor grad_base = at::zeros(base.sizes(), base.options()), grad_query = at::zeros(query.sizes(), base.options());
  if (g.numel() == 0) return {grad_base, grad_query};
  AT_DISPATCH_FLOATING_TYPES(base.scalar_type(), "edge_gather_backward", [&] {
    Backend::gather_edges_backward(neighbours_of(table, b.size(0)), centres_of(table, starts, edges), b.size(1),
                                   b.const_data_ptr<scalar_t>(), q.const_data_ptr<scalar_t>(),
                                   g.const_data_ptr<scalar_t>(), relu, grad_base.mutable_data_ptr<scalar_t>(),
                                   grad_query.mutable_data_ptr<scalar_t>());
  });
  return {grad_base, grad_query};
}

// (G, C) which neighbour's row is the largest, the first of equals; -1 without neighbours.
template <typename Backend>
at::Tensor edge_argmax(const at::Tensor& base, const at::Tensor& idx) {
  TORCH_CHECK_VALUE(base.dim() == 2, "base must have shape (M, C), got ", base.sizes());
  check_float("base", base);
  check_graph(idx, base);
  const DeviceGuard guard(base.device());
  const at::Tensor b = base.contiguous(), table = idx.contiguous();
  at::Tensor out = at::empty({idx.size(0), base.size(1)}, idx.options().dtype(at::kLong));
  if (out.numel() == 0) return out;
  AT_DISPATCH_FLOATING_TYPES(base.scalar_type(), "edge_argmax", [&] {
    Backend::largest_neighbours(neighbours_of(table, b.size(0)), b.size(1), b.const_data_ptr<scalar_t>(),
                                out.mutable_data_ptr<int64_t>());
  });
  return out;
}

// Per centre and channel: the sum of act(base[j] + query[i]), and how many of them pass a gradient.
template <typename Backend>
std::tuple<at::Tensor, at::Tensor> edge_sum(const at::Tensor& base, const at::Tensor& query, const at::Tensor& idx,
                                            const std::optional<at::Tensor>&, const std::optional<at::Tensor>&,
                                            bool relu) {
  check_terms(base, query, idx);
  const DeviceGuard guard(base.device());
  const at::Tensor b = base.contiguous(), q = query.contiguous(), table = idx.contiguous();
  at::Tensor sum = at::empty(query.sizes(), base.options()), passing = at::empty(query.sizes(), base.options());
  if (sum.numel() == 0) return {sum, passing};
  AT_DISPATCH_FLOATING_TYPES(base.scalar_type(), "edge_sum", [&] {
    Backend::sum_edges(neighbours_of(table, b.size(0)), b.size(1), b.const_data_ptr<scalar_t>(),
                       q.const_data_ptr<scalar_t>(), relu, sum.mutable_data_ptr<scalar_t>(),
                       passing.mutable_data_ptr<scalar_t>());
  });
  return {sum, passing};
}

// (M, C) for each base row the sum of grad[i] (G, C) over the centres that have it for a neighbour.
template <typename Backend>
at::Tensor edge_sum_backward(const at::Tensor& grad, const at::Tensor& base, const at::Tensor& query,
                             const at::Tensor& idx, const at::Tensor& start, const at::Tensor& edge, bool relu) {
  check_terms(base, query, idx);
  check_transpose(idx, base.size(0), start, edge);
  check_same_kind("base", base, "grad", grad);
  TORCH_CHECK_VALUE(grad.sizes() == query.sizes(), "grad must have shape ", query.sizes(), ", got ", grad.sizes());
  const DeviceGuard guard(base.device());
  const at::Tensor b = base.contiguous(), q = query.contiguous(), g = grad.contiguous();
  const at::Tensor starts = start.contiguous(), edges = edge.contiguous();
  at::Tensor out = at::zeros(base.sizes(), base.options());
  if (out.numel() == 0 || g.numel() == 0) return out;
  AT_DISPATCH_FLOATING_TYPES(base.scalar_type(), "edge_sum_backward", [&] {
    Backend::sum_edges_backward(centres_of(idx, starts, edges), b.size(1), b.const_data_ptr<scalar_t>(),
                                q.const_data_ptr<scalar_t>(), g.const_data_ptr<scalar_t>(), relu,
                                out.mutable_data_ptr<scalar_t>());
  });
  return out;
}

// Mean and biased variance of each channel over all edges base[j] + query[i] (C,), 0 without edges; and the sum of
// every centre's edges (G, C), and how many it has (G,).
template <typename Backend>
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> edge_moments(const at::Tensor& base, const at::Tensor& query,
                                                                        const at::Tensor& idx,
                                                                        const std::optional<at::Tensor>&,
                                                                        const std::optional<at::Tensor>&) {
  check_terms(base, query, idx);
  const DeviceGuard guard(base.device());
  const at::Tensor b = base.contiguous(), q = query.contiguous(), table = idx.contiguous();
  at::Tensor mean = at::zeros({base.size(1)}, base.options()), variance = at::zeros({base.size(1)}, base.options());
  at::Tensor sum = at::zeros(query.sizes(), base.options()), count = at::zeros({query.size(0)}, idx.options());
  if (sum.numel() == 0 || idx.numel() == 0) return {mean, variance, sum, count};
  AT_DISPATCH_FLOATING_TYPES(base.scalar_type(), "edge_moments", [&] {
    Backend::edge_statistics(neighbours_of(table, b.size(0)), b.size(1), b.const_data_ptr<scalar_t>(),
                             q.const_data_ptr<scalar_t>(), sum.mutable_data_ptr<scalar_t>(),
                             count.mutable_data_ptr<int32_t>(), mean.mutable_data_ptr<scalar_t>(),
                             variance.mutable_data_ptr<scalar_t>());
  });
  return {mean, variance, sum, count};
}

template <typename Backend>
void register_edge_conv(torch::Library& m) {
  m.impl("edge_gather", &edge_gather<Backend>);
  m.impl("edge_gather_backward", &edge_gather_backward<Backend>);
  m.impl("edge_argmax", &edge_argmax<Backend>);
  m.impl("edge_sum", &edge_sum<Backend>);
  m.impl("edge_sum_backward", &edge_sum_backward<Backend>);
  m.impl("edge_moments", &edge_moments<Backend>);
}

}  // namespace pcdet::PCDET_BACKEND
