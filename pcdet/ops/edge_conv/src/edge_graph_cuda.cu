// A table of neighbours made ready, on the GPU: checked, narrowed to int32, and sorted by neighbour.
#include <ATen/Context.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/full.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sum.h>

#include "edge_graph_checks.h"

namespace pcdet::PCDET_BACKEND {

// The extremes of a non-empty table, brought to the host: the only wait for the device.
inline void check_range(const at::Tensor& idx, int64_t num_base) {
  const auto [low, high] = at::aminmax(idx);
  const at::Tensor both = at::stack({low, high}).cpu();
  for (int which : {0, 1}) {
    const int64_t given = both.const_data_ptr<int64_t>()[which];
    TORCH_CHECK_VALUE(given >= -1 && given < num_base, wrong_neighbour(num_base, given));
  }
}

std::tuple<at::Tensor, at::Tensor> edge_index(const at::Tensor& idx, int64_t num_base) {
  check_neighbours(idx, num_base);
  const DeviceGuard guard(idx.device());
  if (idx.numel() > 0) check_range(idx, num_base);
  at::Tensor narrow = idx.to(at::kInt).contiguous();
  return {narrow, narrow.ge(0).sum(1, /*keepdim=*/false, at::kInt)};
}

struct CountEdge {
  const int32_t* base_of;  // (E,)
  int64_t num_base;
  int32_t* counts;  // (M + 1,): of base row j at j + 1
  __device__ void operator()(int64_t e) const {
    const int32_t j = base_of[e];
    if (static_cast<uint64_t>(j) < static_cast<uint64_t>(num_base)) atomicAdd(counts + j + 1, 1);
  }
};

// In whichever order the threads come.
struct PlaceEdge {
  const int32_t* base_of;
  int64_t num_base;
  int32_t* next;  // (M,): the next free place of each base row
  int32_t* sorted;
  __device__ void operator()(int64_t e) const {
    const int32_t j = base_of[e];
    if (static_cast<uint64_t>(j) < static_cast<uint64_t>(num_base)) {
      sorted[atomicAdd(next + j, 1)] = static_cast<int32_t>(e);
    }
  }
};

struct KeyOfEdge {
  const int32_t* base_of;
  int64_t num_base;
  int32_t* keys;  // the missing after all others
  __device__ void operator()(int64_t e) const {
    const int32_t j = base_of[e];
    keys[e] = static_cast<uint64_t>(j) < static_cast<uint64_t>(num_base) ? j : static_cast<int32_t>(num_base);
  }
};

struct CopySorted {
  const int64_t* order;
  const int32_t* total;
  int32_t* sorted;
  __device__ void operator()(int64_t at) const { sorted[at] = at < *total ? static_cast<int32_t>(order[at]) : -1; }
};

// As on the CPU where algorithms must be deterministic; otherwise a base row's edges stand in any order.
std::tuple<at::Tensor, at::Tensor> edge_transpose(const at::Tensor& idx, int64_t num_base) {
  check_narrow(idx, num_base);
  const DeviceGuard guard(idx.device());
  const at::Tensor table = idx.contiguous();
  const int32_t* base_of = table.const_data_ptr<int32_t>();
  const int64_t edges = table.numel();
  at::Tensor counts = at::zeros({num_base + 1}, idx.options());
  for_each(edges, CountEdge{base_of, num_base, counts.mutable_data_ptr<int32_t>()});
  at::Tensor start = at::cumsum(counts, 0, at::kInt);
  if (at::globalContext().deterministicAlgorithms()) {
    at::Tensor keys = at::empty({edges}, idx.options()), edge = at::empty({edges}, idx.options());
    for_each(edges, KeyOfEdge{base_of, num_base, keys.mutable_data_ptr<int32_t>()});
    const at::Tensor order = std::get<1>(at::sort(keys, /*stable=*/true, /*dim=*/0, /*descending=*/false));
    for_each(edges, CopySorted{order.const_data_ptr<int64_t>(), start.const_data_ptr<int32_t>() + num_base,
                               edge.mutable_data_ptr<int32_t>()});
    return {start, edge};
  }
  at::Tensor edge = at::full({edges}, -1, idx.options()), next = start.clone();
  for_each(edges, PlaceEdge{base_of, num_base, next.mutable_data_ptr<int32_t>(), edge.mutable_data_ptr<int32_t>()});
  return {start, edge};
}

TORCH_LIBRARY_IMPL(pcdet, CUDA, m) {
  m.impl("edge_index", &edge_index);
  m.impl("edge_transpose", &edge_transpose);
}

}  // namespace pcdet::PCDET_BACKEND
