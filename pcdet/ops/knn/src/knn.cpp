// K nearest neighbours on the CPU: a k-d tree for up to three coordinates, a product on an integer grid and exact
// distances of what it leaves for wide rows.
//
// Two SIMD mechanisms stand in this folder, because the compiler can vectorise all loops but one:
//   simd_kernels.cpp  plain C++ loops that the compiler turns into vector code by itself. PCDET_WIDE (pcdet/simd.h)
//                     compiles each for the baseline, AVX2 and AVX-512; the loader chooses. The rule for new loops.
//   scan.h, scan.inc  the product on the integer grid, where nearly all the time of a search in wide rows goes. It
//                     wants instructions that no compiler finds in plain code (pairs of 16-bit products added into 32
//                     bits, with VNNI in one instruction), and a tile that fills the registers, whose size depends on
//                     how many there are. So it is written in intrinsics, once, and included for each instruction
//                     set; best_scan() chooses, and PCDET_SIMD asks for less.
#include <pcdet/backend.h>

#include "features.h"
#include "knn_checks.h"
#include "search_job.h"
#include "tree.h"

namespace pcdet::PCDET_BACKEND {

template <typename T>
void search_space(const SearchJob<T>& job) {
  constexpr int64_t kSpare = kLeaf;  // little: the sooner the bound is tight, the fewer leaves are seen
  const Tree<T> tree(job.base, job.num_base, job.channels);
  const int64_t k = std::min(job.k, job.num_base);
  at::parallel_for(0, job.num_queries, /*grain_size=*/256, [&](int64_t begin, int64_t end) {
    Candidates<T> found;
    for (int64_t q = begin; q < end; ++q) {
      Place<T> at{};
      for (int64_t d = 0; d < job.channels; ++d) at[d] = job.query_row(q)[d];
      found.start(k, std::max(kSpare, k / 2));
      tree.search(at, found);
      found.finish();
      job.write(q, found.values(), found.rows(), found.count());
    }
  });
}

void check_ascending(const char* name, const at::Tensor& frame) {
  const auto* ids = frame.const_data_ptr<int64_t>();
  TORCH_CHECK_VALUE(std::is_sorted(ids, ids + frame.numel()), name,
                    " must be non-decreasing; sort the rows by frame first");
}

std::tuple<at::Tensor, at::Tensor> knn(const at::Tensor& query, const at::Tensor& base, int64_t k,
                                       const std::optional<at::Tensor>& query_frame,
                                       const std::optional<at::Tensor>& base_frame) {
  check_knn(query, base, k, query_frame, base_frame);
  const at::Tensor q = query.contiguous(), b = base.contiguous();
  check_finite("query", q);
  check_finite("base", b);
  const at::Tensor q_frame =
      query_frame ? query_frame->contiguous() : at::zeros({q.size(0)}, q.options().dtype(at::kLong));
  const at::Tensor b_frame =
      base_frame ? base_frame->contiguous() : at::zeros({b.size(0)}, b.options().dtype(at::kLong));
  check_ascending("query_frame", q_frame);
  check_ascending("base_frame", b_frame);
  at::Tensor dist2 = at::empty({q.size(0), k}, q.options());
  at::Tensor idx = at::empty({q.size(0), k}, q.options().dtype(at::kLong));
  AT_DISPATCH_FLOATING_TYPES(q.scalar_type(), "knn", [&] {
    const int64_t channels = q.size(1);
    const auto *q_ids = q_frame.const_data_ptr<int64_t>(), *q_end = q_ids + q.size(0);
    const auto *b_ids = b_frame.const_data_ptr<int64_t>(), *b_end = b_ids + b.size(0);
    for (const int64_t* at = q_ids; at != q_end;) {
      const int64_t* next = std::upper_bound(at, q_end, *at);
      const auto [from, to] = std::equal_range(b_ids, b_end, *at);
      const int64_t first = at - q_ids, first_row = from - b_ids;
      const SearchJob<scalar_t> job{q.const_data_ptr<scalar_t>() + first * channels,
                                    b.const_data_ptr<scalar_t>() + first_row * channels,
                                    next - at,
                                    to - from,
                                    channels,
                                    k,
                                    first_row,
                                    dist2.mutable_data_ptr<scalar_t>() + first * k,
                                    idx.mutable_data_ptr<int64_t>() + first * k};
      if (job.num_base == 0)
        for (int64_t i = 0; i < job.num_queries; ++i) job.write_missing(i, 0);
      else
        channels <= kDims ? search_space(job) : search_features(job);
      at = next;
    }
  });
  return {dist2, idx};
}

TORCH_LIBRARY_IMPL(pcdet, CPU, m) { m.impl("knn", &knn); }

}  // namespace pcdet::PCDET_BACKEND
