// Write an op once, compile it twice: g++ builds the CPU kernels, nvcc the CUDA ones.
//
// Everything device-specific that ops share sits in this header. The rest of an op is plain C++ inside
// `namespace pcdet::PCDET_BACKEND`: the two compilers must not emit the same symbol, or the linker would silently keep
// only one of them.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#if defined(__CUDACC__)
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

#include "platform.h"

namespace pcdet::PCDET_BACKEND {

#if defined(__CUDACC__)

using DeviceGuard = c10::cuda::CUDAGuard;

constexpr int kThreads = 256;

// Blocks for a grid-stride loop over n items.
inline unsigned blocks_for(int64_t n) {
  return static_cast<unsigned>(std::min<int64_t>((n + kThreads - 1) / kThreads, 65535));
}

template <typename F>
__global__ void for_each_kernel(int64_t n, F f) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < n; i += stride) f(i);
}

// Calls f(i) for every i in [0, n) on the current CUDA stream.
template <typename F>
void for_each(int64_t n, F f) {
  if (n == 0) return;
  for_each_kernel<<<blocks_for(n), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(n, f);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename F>
__global__ void for_each_pair_kernel(int64_t n, int64_t m, F f) {
  for (int64_t i = blockIdx.y; i < n; i += gridDim.y) {
    const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t j = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; j < m; j += stride) f(i, j);
  }
}

// Calls f(i, j) for every i in [0, n) and j in [0, m); neighbouring j run together.
template <typename F>
void for_each_pair(int64_t n, int64_t m, F f) {
  if (n == 0 || m == 0) return;
  const dim3 grid(blocks_for(m), static_cast<unsigned>(std::min<int64_t>(n, 65535)));
  for_each_pair_kernel<<<grid, kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(n, m, f);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

// The product rounded by itself: nvcc would fuse it into a following sum, and round otherwise than the CPU does.
__device__ __forceinline__ float unfused_product(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double unfused_product(double a, double b) { return __dmul_rn(a, b); }

// Always true: reading the answer would stop the stream. On the GPU a non-finite number spreads into the result
// instead, as each op's docstring says.
inline bool all_within(const at::Tensor&, double) { return true; }

// Always true, for the same reason; kernels test each index before they use it.
inline bool all_rows_of(const at::Tensor&, int64_t) { return true; }

// Always true, for the same reason; kernels cut a range that leaves the table.
inline bool ascend_within(const at::Tensor&, int64_t) { return true; }

template <typename T>
__device__ __forceinline__ void atomic_add(T* address, T value) {
  atomicAdd(address, value);
}

#else

struct DeviceGuard {
  explicit DeviceGuard(const c10::Device&) {}
};

// Work that is worth a second thread. Waking one takes microseconds on an idle machine, but milliseconds where other
// processes (data loading workers) hold the cores, so threads get about a millisecond of work or are left alone.
constexpr int64_t kItemsPerThread = 16384;        // of some 50 ns each
constexpr int64_t kPairsPerThread = 1024 * 1024;  // of some 1 ns each

// Calls f(i) for every i in [0, n), in parallel over the CPU threads.
template <typename F>
void for_each(int64_t n, F f) {
  at::parallel_for(0, n, kItemsPerThread, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(i);
  });
}

// Calls f(i, j) for every i in [0, n) and j in [0, m), rows in parallel.
template <typename F>
void for_each_pair(int64_t n, int64_t m, F f) {
  const int64_t rows_per_thread = std::max<int64_t>(1, kPairsPerThread / std::max<int64_t>(m, 1));
  at::parallel_for(0, n, rows_per_thread, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t j = 0; j < m; ++j) f(i, j);
  });
}

// The product rounded by itself: on this backend -ffp-contract=off sees to it.
template <typename T>
inline T unfused_product(T a, T b) {
  return a * b;
}

// True if every entry of a contiguous float tensor lies in [-largest, largest]; NaN does not.
inline bool all_within(const at::Tensor& x, double largest) {
  bool bad = false;
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "all_within", [&] {
    const auto* values = x.const_data_ptr<scalar_t>();
    const auto limit = static_cast<scalar_t>(largest);
    for (int64_t i = 0, n = x.numel(); i < n; ++i) bad |= !(std::abs(values[i]) <= limit);
  });
  return !bad;
}

// True if every entry of a contiguous int32 or int64 tensor lies in [0, n).
inline bool all_rows_of(const at::Tensor& idx, int64_t n) {
  bool bad = false;
  AT_DISPATCH_INDEX_TYPES(idx.scalar_type(), "all_rows_of", [&] {
    const auto* values = idx.const_data_ptr<index_t>();
    for (int64_t i = 0, count = idx.numel(); i < count; ++i) bad |= values[i] < 0 || values[i] >= n;
  });
  return !bad;
}

// True if a contiguous int64 tensor ascends, equal entries allowed, within [0, n].
inline bool ascend_within(const at::Tensor& offsets, int64_t n) {
  const auto* values = offsets.const_data_ptr<int64_t>();
  int64_t before = 0;
  bool bad = false;
  for (int64_t i = 0, count = offsets.numel(); i < count; ++i) {
    bad |= values[i] < before || values[i] > n;
    before = values[i];
  }
  return !bad;
}

template <typename T>
inline void atomic_add(T* address, T value) {
  T seen, sum;
  __atomic_load(address, &seen, __ATOMIC_RELAXED);
  do {
    sum = seen + value;
  } while (!__atomic_compare_exchange(address, &seen, &sum, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

#endif

}  // namespace pcdet::PCDET_BACKEND
