// Launches that CUDA refuses, or that go where torch does not wait for them.
#include "planted.h"

using planted::Array;

__global__ void nothing() {}

PLANTED(clean_launch) {
  const cuda_emulator::GuardedScope guard;
  nothing<<<dim3(2, 3, 4), dim3(8, 4, 2), ON_STREAM>>>();
}

PLANTED(zero_grid) {
  const cuda_emulator::GuardedScope guard;
  // [both] zero_grid: a grid of (0, 1, 1) blocks
  nothing<<<0, 32, ON_STREAM>>>();
}

PLANTED(grid_beyond_limits) {
  const cuda_emulator::GuardedScope guard;
  // [both] grid_beyond_limits: a grid of (1, 65536, 1) blocks
  nothing<<<dim3(1, 65536), 32, ON_STREAM>>>();
}

PLANTED(block_beyond_limits) {
  const cuda_emulator::GuardedScope guard;
  // [both] block_beyond_limits: a block of (1025, 1, 1) threads
  nothing<<<1, 1025, ON_STREAM>>>();
}

PLANTED(clean_largest_block) {
  const cuda_emulator::GuardedScope guard;
  nothing<<<1, 1024, ON_STREAM>>>();
}

PLANTED(no_stream) {
  const cuda_emulator::GuardedScope guard;
  // [both] no_stream: legacy default stream
  nothing<<<1, 32>>>();
}

PLANTED(other_stream) {
  const cuda_emulator::GuardedScope guard;
  // [both] other_stream: legacy default stream
  nothing<<<1, 32, 0, nullptr>>>();
}

PLANTED(no_guard) {
  // [both] no_guard: without a device guard
  nothing<<<1, 32, ON_STREAM>>>();
}

__global__ void use_dynamic() {
  // [both] dynamic_memory_not_given: the launch gives none; thread (0, 0, 0)
  extern __shared__ int lists[];
  lists[threadIdx.x] = 0;
}

PLANTED(dynamic_memory_not_given) {
  const cuda_emulator::GuardedScope guard;
  use_dynamic<<<1, 32, ON_STREAM>>>();
}

PLANTED(dynamic_memory_not_asked_for) {
  const cuda_emulator::GuardedScope guard;
  // [both] dynamic_memory_not_asked_for: cudaFuncSetAttribute
  use_dynamic<<<1, 32, 48 * 1024 + 1, cuda_emulator::current_stream()>>>();
}

__global__ void use_much_dynamic() {
  extern __shared__ int lists[];
  lists[threadIdx.x] = 0;
}

PLANTED(clean_dynamic_memory_asked_for) {
  const cuda_emulator::GuardedScope guard;
  const int bytes = 64 * 1024;
  cuda_emulator::check(cudaFuncSetAttribute(use_much_dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
                       "set", {__FILE__, __LINE__});
  use_much_dynamic<<<1, 32, bytes, cuda_emulator::current_stream()>>>();
}

PLANTED(more_memory_than_the_device_has) {
  const cuda_emulator::GuardedScope guard;
  const int bytes = 200 * 1024;
  cuda_emulator::check(cudaFuncSetAttribute(use_much_dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
                       "set",
                       // [both] more_memory_than_the_device_has: invalid value
                       {__FILE__, __LINE__});
}

__global__ void use_much_static() {
  // [both] much_static_memory: 49160 bytes of static shared memory; thread (0, 0, 0)
  __shared__ double tile[6145];
  tile[threadIdx.x] = 0;
}

PLANTED(much_static_memory) {
  const cuda_emulator::GuardedScope guard;
  use_much_static<<<1, 32, ON_STREAM>>>();
}
