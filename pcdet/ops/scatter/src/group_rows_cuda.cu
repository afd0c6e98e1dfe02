// Rows sorted by their group on the GPU: a stable sort, and the place of each group's first row in it.
#include <ATen/ops/sort.h>

#include "group_rows_checks.h"

namespace pcdet::PCDET_BACKEND {

struct KeyOfRow {
  const int64_t* group;  // (N,)
  int64_t num_groups;
  int32_t* keys;  // behind all groups for rows of none, as which an index out of range counts
  __device__ void operator()(int64_t i) const {
    const int64_t g = group[i];
    keys[i] = static_cast<int32_t>(g >= 0 && g < num_groups ? g : num_groups);
  }
};

struct FirstOfGroup {
  const int32_t* keys;  // (N,) ascending
  int64_t n;
  int64_t* offsets;
  __device__ void operator()(int64_t g) const {
    int64_t low = 0, high = n;  // the first row whose group is g or a later one
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (keys[middle] < g) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    offsets[g] = low;
  }
};

std::tuple<at::Tensor, at::Tensor> group_rows(const at::Tensor& index, int64_t num_groups) {
  check_group_rows(index, num_groups);
  const DeviceGuard guard(index.device());
  const at::Tensor groups = index.contiguous();
  const int64_t n = groups.size(0);
  at::Tensor unsorted = at::empty({n}, index.options().dtype(at::kInt));
  at::Tensor offsets = at::empty({num_groups + 1}, index.options());
  for_each(n, KeyOfRow{groups.const_data_ptr<int64_t>(), num_groups, unsorted.mutable_data_ptr<int32_t>()});
  const auto [keys, order] = at::sort(unsorted, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  for_each(num_groups + 1, FirstOfGroup{keys.const_data_ptr<int32_t>(), n, offsets.mutable_data_ptr<int64_t>()});
  return {order, offsets};
}

TORCH_LIBRARY_IMPL(pcdet, CUDA, m) { m.impl("group_rows", &group_rows); }

}  // namespace pcdet::PCDET_BACKEND
