// The GPU's way through a graph: a warp for each row, a lane for each channel, so that rows are read side by side.
//
// A term has `Sum`, what a lane accumulates; `start(row, c)`; `add(sum, partner, edge, c)`; and `finish(sum, row, c)`,
// which writes and gives what is to be added up over the channels for `finish_row(row, total)`. Terms for base rows
// also have `flush(sum, row, c)`, which adds to what others write at the same time.
#pragma once

#include <ATen/Context.h>

#include "adjacency.h"

namespace pcdet::PCDET_BACKEND {

constexpr int kWarp = 32;
constexpr int kWarpsPerBlock = kThreads / kWarp;

template <typename Term>
__global__ void rows_kernel(Adjacency graph, int64_t channels, Term term) {
  const int lane = threadIdx.x % kWarp;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * kWarpsPerBlock;
  for (int64_t row = blockIdx.x * static_cast<int64_t>(kWarpsPerBlock) + threadIdx.x / kWarp; row < graph.rows;
       row += warps) {
    auto total = term.nothing();
    for (int64_t c = lane; c < channels; c += kWarp) {
      auto sum = term.start(row, c);
      const int64_t end = graph.end(row);
#pragma unroll 4
      for (int64_t at = graph.begin(row); at < end; ++at) {
        const int64_t partner = graph.partner(at);
        if (partner >= 0) term.add(sum, partner, graph.edge(at), c);
      }
      total += term.finish(sum, row, c);
    }
    for (int step = kWarp / 2; step > 0; step /= 2) total += __shfl_down_sync(0xffffffffu, total, step);
    if (lane == 0) term.finish_row(row, total);
  }
}

// One warp for each row, however long: the same sums in the same order every time.
template <typename Term>
void sum_rows(const Adjacency& graph, int64_t channels, const Term& term) {
  if (graph.rows == 0 || channels == 0) return;
  const auto blocks = std::min<int64_t>((graph.rows + kWarpsPerBlock - 1) / kWarpsPerBlock, 65535);
  rows_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(graph, channels, term);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

constexpr int64_t kSegment = 64;  // edges of one lane; some base rows have thousands of centres, most have few

template <typename Term>
__global__ void segments_kernel(Adjacency graph, int64_t channels, Term term) {
  const int lane = threadIdx.x % kWarp;
  const int64_t edges = graph.end(graph.rows - 1), segments = (edges + kSegment - 1) / kSegment;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * kWarpsPerBlock;
  for (int64_t segment = blockIdx.x * static_cast<int64_t>(kWarpsPerBlock) + threadIdx.x / kWarp; segment < segments;
       segment += warps) {
    const int64_t begin = segment * kSegment, end = min(begin + kSegment, edges);
    int64_t low = 0, high = graph.rows - 1;  // the row that holds `begin`: the last that starts at or before it
    while (low < high) {
      const int64_t middle = (low + high + 1) / 2;
      if (graph.begin(middle) <= begin) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    for (int64_t c = lane; c < channels; c += kWarp) {
      int64_t row = low, at = begin;
      while (at < end && row < graph.rows) {
        const int64_t row_end = min(graph.end(row), end);
        auto sum = term.start(row, c);
#pragma unroll 4
        for (; at < row_end; ++at) {
          const int64_t partner = graph.partner(at);
          if (partner >= 0) term.add(sum, partner, graph.edge(at), c);
        }
        term.flush(sum, row, c);
        for (++row; row < graph.rows && graph.end(row) <= at; ++row) {
        }
      }
    }
  }
}

// Sums at base rows, onto zeros: equal parts of the edges for all warps, unless the result must be the same every time.
template <typename Term>
void sum_base_rows(const Adjacency& graph, int64_t channels, const Term& term) {
  if (graph.rows == 0 || channels == 0 || graph.edges == 0) return;
  if (at::globalContext().deterministicAlgorithms()) return sum_rows(graph, channels, term);
  const int64_t segments = (graph.edges + kSegment - 1) / kSegment;
  const auto blocks = std::min<int64_t>((segments + kWarpsPerBlock - 1) / kWarpsPerBlock, 65535);
  segments_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(graph, channels,
                                                                                                     term);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace pcdet::PCDET_BACKEND
