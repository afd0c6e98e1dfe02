// The criterion's host functions, templates over their backend: a struct with
//   Rows<T, kTwoSides, kWeighted>   a job for every row of a graph; its members stand in edge_distance.cpp;
//   sum_distances(rows)             does it.
#pragma once

#include "adjacency.h"

namespace pcdet::PCDET_BACKEND {

using OptionalTensor = std::optional<at::Tensor>;

// What both directions are given: an edge of each side is act(base[j] + query[i]).
struct Sides {
  at::Tensor base, query, other_base, other_query;  // contiguous; the others undefined where there is one side
  bool relu, other_relu;
  bool two() const { return other_base.defined(); }
};

inline Sides check_sides(const at::Tensor& base, const at::Tensor& query, const OptionalTensor& other_base,
                         const OptionalTensor& other_query, const at::Tensor& idx, bool relu, bool other_relu) {
  check_terms(base, query, idx);
  Sides sides{base.contiguous(), query.contiguous(), {}, {}, relu, other_relu};
  TORCH_CHECK_VALUE(other_base.has_value() == other_query.has_value(),
                    "other_base and other_query must be given together or not at all");
  if (!other_base) return sides;
  TORCH_CHECK_VALUE(other_base->sizes() == base.sizes() && other_query->sizes() == query.sizes(),
                    "both sides must have the same shapes, got ", base.sizes(), " and ", other_base->sizes(),
                    " for base and ", query.sizes(), " and ", other_query->sizes(), " for query");
  check_same_kind("base", base, "other_base", *other_base);
  check_same_kind("query", query, "other_query", *other_query);
  sides.other_base = other_base->contiguous();
  sides.other_query = other_query->contiguous();
  return sides;
}

// Rows of one side of the edges, with the other side's as partners; what they sum up is not set yet.
template <typename Rows, typename T, bool kTwoSides>
Rows rows_between(const Sides& s, const Adjacency& graph, bool of_centres, const T* weight) {
  const at::Tensor &own = of_centres ? s.query : s.base, &partner = of_centres ? s.base : s.query;
  const at::Tensor &other_own = of_centres ? s.other_query : s.other_base,
                   &other_partner = of_centres ? s.other_base : s.other_query;
  return {graph,
          s.base.size(1),
          own.const_data_ptr<T>(),
          partner.const_data_ptr<T>(),
          kTwoSides ? other_own.const_data_ptr<T>() : nullptr,
          kTwoSides ? other_partner.const_data_ptr<T>() : nullptr,
          floor_of<T>(s.relu),
          floor_of<T>(s.other_relu),
          weight,
          nullptr,
          nullptr,
          nullptr};
}

template <typename Backend, typename T, bool kTwoSides>
auto distances_of_centres(const Sides& s, const Adjacency& graph) {
  return rows_between<typename Backend::template Rows<T, kTwoSides, false>, T, kTwoSides>(s, graph, true, nullptr);
}

template <typename Backend, typename T, bool kTwoSides>
auto slopes_of_base_rows(const Sides& s, const Adjacency& graph, const at::Tensor& weight) {
  return rows_between<typename Backend::template Rows<T, kTwoSides, true>, T, kTwoSides>(s, graph, false,
                                                                                         weight.const_data_ptr<T>());
}

// -> per centre the sum of |d|^2 (G,), and half its gradients by query and other_query (G, C), which cost nothing here.
template <typename Backend>
std::tuple<at::Tensor, at::Tensor, at::Tensor> edge_distance(const at::Tensor& base, const at::Tensor& query,
                                                             const OptionalTensor& other_base,
                                                             const OptionalTensor& other_query, const at::Tensor& idx,
                                                             const OptionalTensor&, const OptionalTensor&, bool relu,
                                                             bool other_relu) {
  const Sides sides = check_sides(base, query, other_base, other_query, idx, relu, other_relu);
  const DeviceGuard guard(base.device());
  const at::Tensor table = idx.contiguous();
  const Adjacency graph = neighbours_of(table, base.size(0));
  at::Tensor distance = at::zeros({query.size(0)}, base.options()), slope = at::zeros(query.sizes(), base.options());
  at::Tensor other_slope = at::zeros({sides.two() ? query.size(0) : 0, query.size(1)}, base.options());
  if (slope.numel() == 0) return {distance, slope, other_slope};
  AT_DISPATCH_FLOATING_TYPES(base.scalar_type(), "edge_distance", [&] {
    const auto fill = [&](auto job) {
      job.slope = slope.mutable_data_ptr<scalar_t>();
      job.other_slope = sides.two() ? other_slope.mutable_data_ptr<scalar_t>() : nullptr;
      job.distance = distance.mutable_data_ptr<scalar_t>();
      Backend::sum_distances(job);
    };
    sides.two() ? fill(distances_of_centres<Backend, scalar_t, true>(sides, graph))
                : fill(distances_of_centres<Backend, scalar_t, false>(sides, graph));
  });
  return {distance, slope, other_slope};
}

// -> sums over the centres of weight * d by base and by other_base (M, C); the second empty unless wanted.
template <typename Backend>
std::tuple<at::Tensor, at::Tensor> edge_distance_backward(const at::Tensor& weight, const at::Tensor& base,
                                                          const at::Tensor& query, const OptionalTensor& other_base,
                                                          const OptionalTensor& other_query, const at::Tensor& idx,
                                                          const at::Tensor& start, const at::Tensor& edge, bool relu,
                                                          bool other_relu, bool other_wanted) {
  const Sides sides = check_sides(base, query, other_base, other_query, idx, relu, other_relu);
  check_transpose(idx, base.size(0), start, edge);
  check_same_kind("base", base, "weight", weight);
  TORCH_CHECK_VALUE(weight.dim() == 1 && weight.size(0) == query.size(0), "weight must have shape (", query.size(0),
                    ",), got ", weight.sizes());
  const DeviceGuard guard(base.device());
  const at::Tensor starts = start.contiguous(), edges = edge.contiguous(), weights = weight.contiguous();
  const Adjacency graph = centres_of(idx, starts, edges);
  const bool other = sides.two() && other_wanted;
  at::Tensor slope = at::zeros(base.sizes(), base.options());
  at::Tensor other_slope = at::zeros({other ? base.size(0) : 0, base.size(1)}, base.options());
  if (slope.numel() == 0) return {slope, other_slope};
  AT_DISPATCH_FLOATING_TYPES(base.scalar_type(), "edge_distance_backward", [&] {
    const auto fill = [&](auto job) {
      job.slope = slope.mutable_data_ptr<scalar_t>();
      job.other_slope = other ? other_slope.mutable_data_ptr<scalar_t>() : nullptr;
      Backend::sum_distances(job);
    };
    sides.two() ? fill(slopes_of_base_rows<Backend, scalar_t, true>(sides, graph, weights))
                : fill(slopes_of_base_rows<Backend, scalar_t, false>(sides, graph, weights));
  });
  return {slope, other_slope};
}

template <typename Backend>
void register_edge_distance(torch::Library& m) {
  m.impl("edge_distance", &edge_distance<Backend>);
  m.impl("edge_distance_backward", &edge_distance_backward<Backend>);
}

}  // namespace pcdet::PCDET_BACKEND
