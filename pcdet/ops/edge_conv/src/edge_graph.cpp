// A table of neighbours made ready, on the CPU: checked, narrowed to int32, and sorted by neighbour.
#include <atomic>
#include <vector>

#include "edge_graph_checks.h"

namespace pcdet::PCDET_BACKEND {

// (G, K) int64 -> the same in int32, and how many neighbours each centre has.
std::tuple<at::Tensor, at::Tensor> edge_index(const at::Tensor& idx, int64_t num_base) {
  check_neighbours(idx, num_base);
  const at::Tensor wide = idx.contiguous();
  const int64_t rows = idx.size(0), k = idx.size(1);
  at::Tensor narrow = at::empty({rows, k}, idx.options().dtype(at::kInt)), degree = at::empty({rows}, narrow.options());
  const int64_t* from = wide.const_data_ptr<int64_t>();
  int32_t *to = narrow.mutable_data_ptr<int32_t>(), *degrees = degree.mutable_data_ptr<int32_t>();
  std::atomic<int64_t> wrong = -1;  // any index out of range
  at::parallel_for(0, rows, kPairsPerThread / std::max<int64_t>(k, 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int32_t there = 0;
      bool bad = false;
      for (int64_t e = i * k; e < (i + 1) * k; ++e) {
        to[e] = static_cast<int32_t>(from[e]);
        there += from[e] >= 0;
        bad |= from[e] < -1 || from[e] >= num_base;
      }
      degrees[i] = there;
      if (bad) wrong = i;
    }
  });
  if (wrong >= 0) {
    for (int64_t e = wrong * k;; ++e)
      TORCH_CHECK_VALUE(from[e] >= -1 && from[e] < num_base, wrong_neighbour(num_base, from[e]));
  }
  return {narrow, degree};
}

// Edges sorted by base row, each base row's in ascending order; missing ones are left out, and the rest of `edge` is
// -1.
std::tuple<at::Tensor, at::Tensor> edge_transpose(const at::Tensor& idx, int64_t num_base) {
  check_narrow(idx, num_base);
  const at::Tensor table = idx.contiguous();
  const int32_t* base_of = table.const_data_ptr<int32_t>();
  const int64_t edges = table.numel();
  at::Tensor start = at::empty({num_base + 1}, idx.options()), edge = at::empty({edges}, idx.options());
  int32_t *starts = start.mutable_data_ptr<int32_t>(), *sorted = edge.mutable_data_ptr<int32_t>();

  // A counting sort. Each part of the edges has its own column of counters, so that parts are placed side by side.
  const int64_t parts = std::clamp<int64_t>(edges / kPairsPerThread, 1, std::min(at::get_num_threads(), 16));
  const auto first_of = [&](int64_t part) { return edges * part / parts; };
  const auto valid = [&](int32_t j) { return static_cast<uint64_t>(j) < static_cast<uint64_t>(num_base); };
  std::vector<int32_t> place(num_base * parts, 0);
  at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part)
      for (int64_t e = first_of(part); e < first_of(part + 1); ++e)
        if (valid(base_of[e])) ++place[base_of[e] * parts + part];
  });
  int32_t total = 0;
  for (int64_t j = 0; j < num_base; ++j) {
    starts[j] = total;
    for (int64_t part = 0; part < parts; ++part) {
      const int32_t count = place[j * parts + part];
      place[j * parts + part] = total;
      total += count;
    }
  }
  starts[num_base] = total;
  std::fill(sorted + total, sorted + edges, -1);
  at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part)
      for (int64_t e = first_of(part); e < first_of(part + 1); ++e)
        if (valid(base_of[e])) sorted[place[base_of[e] * parts + part]++] = static_cast<int32_t>(e);
  });
  return {start, edge};
}

TORCH_LIBRARY_IMPL(pcdet, CPU, m) {
  m.impl("edge_index", &edge_index);
  m.impl("edge_transpose", &edge_transpose);
}

}  // namespace pcdet::PCDET_BACKEND
