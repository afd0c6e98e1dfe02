// Columns of features on the CPU. One thread adds a whole row of gradients, so that the sums' order is always the same.
#include "gather_host.h"

namespace pcdet::PCDET_BACKEND {

template <typename T, typename I>
struct AddRow {
  AddColumn<T, I> add;
  void operator()(int64_t row) const {
    const I* idx = add.idx + row / add.channels * add.entries();
    T* out = add.out + row * add.n;
    for (int64_t e = 0; e < add.entries(); ++e) out[idx[e]] += add.share(row, e);
  }
};

struct CpuGather {
  template <typename T, typename I>
  static void scatter_rows(const at::Tensor&, const AddColumn<T, I>& add, int64_t frames) {
    const int64_t rows_per_thread = std::max<int64_t>(1, kPairsPerThread / add.entries());
    at::parallel_for(0, frames * add.channels, rows_per_thread, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) AddRow<T, I>{add}(row);
    });
  }
};

TORCH_LIBRARY_IMPL(pcdet, CPU, m) { register_gather<CpuGather>(m); }

}  // namespace pcdet::PCDET_BACKEND
