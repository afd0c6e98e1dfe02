// Reductions over groups of rows on the GPU: a thread takes one channel of a group and goes through its rows in order,
// beside the threads of the other channels. Results are the same every time, and those of the CPU.
#include "scatter_host.h"

namespace pcdet::PCDET_BACKEND {

template <typename T>
struct SumOfGroup {
  RowGroups groups;
  const T* src;  // (N, C)
  int64_t channels;
  T* out;  // (G, C)
  __device__ void operator()(int64_t i) const {
    const int64_t g = i / channels, c = i % channels;
    T sum = 0;
    for (int64_t at = groups.begin(g), last = groups.end(g); at < last; ++at) {
      const int64_t row = groups.row(at);
      if (row >= 0) sum += src[row * channels + c];
    }
    out[i] = sum;
  }
};

template <typename T>
struct LargestRow {
  RowGroups groups;
  const T* src;  // (N, C)
  int64_t channels;
  T* out;           // (G, C)
  int32_t* argmax;  // (G, C)
  __device__ void operator()(int64_t i) const {
    const int64_t g = i / channels, c = i % channels;
    T best = 0;
    int64_t best_row = -1;
    for (int64_t at = groups.begin(g), last = groups.end(g); at < last; ++at) {
      const int64_t row = groups.row(at);
      if (row < 0) continue;
      const T x = src[row * channels + c];
      if (best_row < 0 || x > best || (x != x && best == best)) {
        best = x;
        best_row = row;
      }
    }
    out[i] = best;
    argmax[i] = static_cast<int32_t>(best_row);
  }
};

template <typename T>
struct ExpandGroup {
  RowGroups groups;
  const T* values;  // (G, C)
  int64_t channels;
  T* out;  // (N, C)
  __device__ void operator()(int64_t i) const {
    const int64_t g = i / channels, c = i % channels;
    for (int64_t at = groups.begin(g), last = groups.end(g); at < last; ++at) {
      const int64_t row = groups.row(at);
      if (row >= 0) out[row * channels + c] = values[i];
    }
  }
};

template <typename T>
struct SpreadToLargest {
  const T* grad;          // (G, C)
  const int32_t* argmax;  // (G, C)
  int64_t channels, rows;
  T* out;  // (N, C)
  __device__ void operator()(int64_t i) const {
    const int64_t row = argmax[i];
    if (row >= 0 && row < rows) out[row * channels + i % channels] = grad[i];
  }
};

struct CudaScatter {
  template <typename T>
  static void sum(const RowGroups& groups, const T* src, int64_t channels, T* out) {
    for_each(groups.groups * channels, SumOfGroup<T>{groups, src, channels, out});
  }

  template <typename T>
  static void largest(const RowGroups& groups, const T* src, int64_t channels, T* out, int32_t* argmax) {
    for_each(groups.groups * channels, LargestRow<T>{groups, src, channels, out, argmax});
  }

  template <typename T>
  static void expand(const RowGroups& groups, const T* values, int64_t channels, T* out) {
    for_each(groups.groups * channels, ExpandGroup<T>{groups, values, channels, out});
  }

  template <typename T>
  static void spread(const T* grad, const int32_t* argmax, int64_t groups, int64_t channels, int64_t rows, T* out) {
    for_each(groups * channels, SpreadToLargest<T>{grad, argmax, channels, rows, out});
  }

  // The offsets lie on the GPU, where the host would have to wait for them.
  static bool writes_all(const RowGroups&) { return false; }
};

TORCH_LIBRARY_IMPL(pcdet, CUDA, m) { register_scatter<CudaScatter>(m); }

}  // namespace pcdet::PCDET_BACKEND
