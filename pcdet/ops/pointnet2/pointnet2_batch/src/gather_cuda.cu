// Columns of features on the GPU. Gradients are added atomically, or, where torch.use_deterministic_algorithms asks for
// it, in the order of the entries, which a stable sort brings together.
#include <ATen/Context.h>
#include <ATen/ops/sort.h>

#include "gather_host.h"

namespace pcdet::PCDET_BACKEND {

template <typename T, typename I>
struct AddAtomically {
  AddColumn<T, I> add;
  PCDET_HD void operator()(int64_t row, int64_t e) const {
    const I i = add.idx[row / add.channels * add.entries() + e];
    if (is_row(i, add.n)) atomic_add(add.out + row * add.n + i, add.share(row, e));
  }
};

template <typename T, typename I>
struct AddInOrder {
  AddColumn<T, I> add;
  const I* sorted;       // (B, E) the indices, ascending
  const int64_t* entry;  // (B, E) where each came from
  PCDET_HD void operator()(int64_t row, int64_t i) const {
    const int64_t frame = row / add.channels * add.entries();
    int64_t low = 0, high = add.entries();  // the first entry of column i
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (sorted[frame + middle] < i)
        low = middle + 1;
      else
        high = middle;
    }
    T sum = 0;
    for (; low < add.entries() && sorted[frame + low] == i; ++low) sum += add.share(row, entry[frame + low]);
    add.out[row * add.n + i] = sum;
  }
};

struct CudaGather {
  template <typename T, typename I>
  static void scatter_rows(const at::Tensor& idx, const AddColumn<T, I>& add, int64_t frames) {
    if (!at::globalContext().deterministicAlgorithms()) {
      for_each_pair(frames * add.channels, add.entries(), AddAtomically<T, I>{add});
      return;
    }
    const auto [sorted, entry] = at::sort(idx, /*stable=*/true, /*dim=*/1, /*descending=*/false);
    for_each_pair(frames * add.channels, add.n,
                  AddInOrder<T, I>{add, sorted.template const_data_ptr<I>(), entry.template const_data_ptr<int64_t>()});
  }
};

TORCH_LIBRARY_IMPL(pcdet, CUDA, m) { register_gather<CudaGather>(m); }

}  // namespace pcdet::PCDET_BACKEND
