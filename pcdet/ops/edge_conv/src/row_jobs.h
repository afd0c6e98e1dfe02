// The CPU's way through a graph: row by row, four partners at a time, channels in vector registers.
//
// A job has `add<n>(row, partners, places)`, which adds n partners to what it accumulates for a row, and `rows(begin,
// end)`, which calls `walk` for its rows. `run` is compiled once for each job that is to be fast and processor.
#pragma once

#include <pcdet/simd.h>

#include "adjacency.h"

namespace pcdet::PCDET_BACKEND {

// Calls job.add for all partners of a row.
template <typename Job>
PCDET_INLINE void walk(const Job& job, const Adjacency& graph, int64_t row) {
  constexpr int kTogether = 4;  // what is accumulated is read and written once for so many partners
  int64_t partners[kTogether];
  int found = 0;
  for (int64_t at = graph.begin(row), end = graph.end(row); at < end; ++at) {
    const int64_t partner = graph.partner(at);
    if (partner < 0) continue;
    partners[found++] = partner;
    if (found == kTogether) {
      job.template add<kTogether>(row, partners);
      found = 0;
    }
  }
  for (int e = 0; e < found; ++e) job.template add<1>(row, partners + e);
}

// Any job without a PCDET_WIDE version of its own.
template <typename Job>
void run(const Job& job, int64_t begin, int64_t end) {
  job.rows(begin, end);
}

// Blocks of rows with about the same number of edges. They do not depend on the number of threads, so that sums over
// blocks do not either.
struct RowBlocks {
  static constexpr int64_t kBlockWork = 256 * 1024;  // edges times channels
  static constexpr int64_t kBlocksPerThread = 16;    // about a millisecond

  const Adjacency& graph;
  int64_t count;

  RowBlocks(const Adjacency& a, int64_t channels) : graph(a) {
    count = std::clamp<int64_t>((a.edges + a.rows) * channels / kBlockWork, 1, std::max<int64_t>(a.rows, 1));
  }
  // The first row of a block.
  int64_t row(int64_t block) const {
    if (block == count) return graph.rows;
    const int64_t wanted = (graph.edges + graph.rows) / count * block;
    int64_t low = 0, high = graph.rows;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      graph.begin(middle) + middle < wanted ? low = middle + 1 : high = middle;
    }
    return low;
  }
  // Calls f(block, first row, last row + 1) for all blocks, in parallel.
  template <typename F>
  void for_each_block(F f) const {
    at::parallel_for(0, count, kBlocksPerThread, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) f(block, row(block), row(block + 1));
    });
  }
};

template <typename Job>
void run_all(const Job& job, const Adjacency& graph, int64_t channels) {
  RowBlocks(graph, channels).for_each_block([&](int64_t, int64_t begin, int64_t end) { run(job, begin, end); });
}

}  // namespace pcdet::PCDET_BACKEND
