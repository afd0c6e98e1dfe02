// CUDA's vocabulary for g++, included ahead of every translated source, after torch's headers (which must not see
// __CUDACC__). What is not here does not compile: the compiler then names the function, the file and the line.
#pragma once

#include <math.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "runtime.h"

#define __CUDACC__ 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

#define threadIdx ::cuda_emulator::indices.thread
#define blockIdx ::cuda_emulator::indices.block
#define blockDim ::cuda_emulator::indices.block_size
#define gridDim ::cuda_emulator::indices.grid_size

#define CUDA_EMULATOR_SITE (::cuda_emulator::Site{__FILE__, __LINE__})

// ---- barriers and warp operations

#define __syncthreads() ((void)::cuda_emulator::sync_threads(CUDA_EMULATOR_SITE))
#define __syncthreads_or(predicate) \
  static_cast<int>(::cuda_emulator::sync_threads(CUDA_EMULATOR_SITE, (predicate) != 0))
#define __syncwarp(...)                                                                                         \
  ((void)::cuda_emulator::warp_op(::cuda_emulator::WarpOp::kSync, 0xffffffffu __VA_OPT__(&(__VA_ARGS__)), 0, 0, \
                                  CUDA_EMULATOR_SITE))
#define __ballot_sync(mask, predicate) \
  static_cast<unsigned>(               \
      ::cuda_emulator::warp_op(::cuda_emulator::WarpOp::kBallot, mask, (predicate) ? 1 : 0, 0, CUDA_EMULATOR_SITE))
#define __match_any_sync(mask, value)                                                      \
  static_cast<unsigned>(::cuda_emulator::warp_op(::cuda_emulator::WarpOp::kMatchAny, mask, \
                                                 ::cuda_emulator::bits_of(value), 0, CUDA_EMULATOR_SITE))
#define CUDA_EMULATOR_SHUFFLE(op, mask, value, by)                                    \
  ::cuda_emulator::from_bits<std::decay_t<decltype(value)>>(::cuda_emulator::warp_op( \
      ::cuda_emulator::WarpOp::op, mask, ::cuda_emulator::bits_of(value), by, CUDA_EMULATOR_SITE))
#define __shfl_sync(mask, value, lane) CUDA_EMULATOR_SHUFFLE(kShuffle, mask, value, lane)
#define __shfl_down_sync(mask, value, by) CUDA_EMULATOR_SHUFFLE(kShuffleDown, mask, value, by)
#define __shfl_xor_sync(mask, value, by) CUDA_EMULATOR_SHUFFLE(kShuffleXor, mask, value, by)

// ---- bits

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }

// ---- arithmetic

// The empty statement hides the product from the compiler, which could fuse it into a sum otherwise.
inline float __fmul_rn(float a, float b) {
  float product = a * b;
  asm("" : "+x"(product));
  return product;
}
inline double __dmul_rn(double a, double b) {
  double product = a * b;
  asm("" : "+x"(product));
  return product;
}

// As CUDA's: of a number and a NaN, the number.
template <typename A, typename B>
inline std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) {
    return std::fmin(T(a), T(b));
  } else {
    return T(b) < T(a) ? T(b) : T(a);
  }
}
template <typename A, typename B>
inline std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) {
    return std::fmax(T(a), T(b));
  } else {
    return T(a) < T(b) ? T(b) : T(a);
  }
}

// ---- atomics. Threads switch only where they wait, so plain code is atomic; the watcher is told, not the instrumented
// accesses. Functions of their own, so that the return address is the kernel's line.

#define CUDA_EMULATOR_ATOMIC __attribute__((noinline, no_sanitize("thread")))

template <typename T>
CUDA_EMULATOR_ATOMIC T atomicAdd(T* address, std::type_identity_t<T> value) {
  ::cuda_emulator::touch_atomically(address, sizeof(T), __builtin_return_address(0));
  const T old = *address;
  *address = old + value;
  return old;
}
template <typename T>
CUDA_EMULATOR_ATOMIC T atomicMin(T* address, std::type_identity_t<T> value) {
  ::cuda_emulator::touch_atomically(address, sizeof(T), __builtin_return_address(0));
  const T old = *address;
  if (value < old) *address = value;
  return old;
}
template <typename T>
CUDA_EMULATOR_ATOMIC T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  ::cuda_emulator::touch_atomically(address, sizeof(T), __builtin_return_address(0));
  const T old = *address;
  if (old == expected) *address = value;
  return old;
}

// ---- the runtime API

template <typename... Args>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Args...), cudaFuncAttribute attribute, int value) {
  return ::cuda_emulator::set_attribute(reinterpret_cast<const void*>(kernel), attribute, value);
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  return ::cuda_emulator::device_attribute(value, attribute);
}
template <typename... Args>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void (*)(Args...), int threads, size_t shared) {
  return ::cuda_emulator::occupancy(blocks, threads, shared);
}
