// Accesses beyond the memory that the kernel was given, and of memory that nobody has written.
#include "planted.h"

using planted::Array;

__global__ void write_row(float* out, int row) {
  // [watched] write_past_block: write out of bounds; thread (8, 0, 0) of block (0, 0, 0)
  out[row * blockDim.x + threadIdx.x] = 1.0f;
}

PLANTED(write_past_block) {
  const cuda_emulator::GuardedScope guard;
  const Array<float> out(40);
  write_row<<<1, 32, ON_STREAM>>>(out.data, 1);
}

PLANTED(clean_write_whole_block) {
  const cuda_emulator::GuardedScope guard;
  const Array<float> out(64);
  write_row<<<1, 32, ON_STREAM>>>(out.data, 1);
}

__global__ void read_before(const double* values, double* out) {
  // [watched] read_before_block: read out of bounds; thread (0, 0, 0) of block
  out[threadIdx.x] = values[int(threadIdx.x) - 1];
}

PLANTED(read_before_block) {
  const cuda_emulator::GuardedScope guard;
  const auto values = Array<double>::zeros(4);
  const Array<double> out(4);
  read_before<<<1, 4, ON_STREAM>>>(values.data, out.data);
}

PLANTED(clean_read_from_begin) {
  const cuda_emulator::GuardedScope guard;
  const auto values = Array<double>::zeros(5);
  const Array<double> out(4);
  read_before<<<1, 4, ON_STREAM>>>(values.data + 1, out.data);
}

__global__ void write_tile(int past) {
  __shared__ int tile[16];
  // [watched] write_past_shared: write out of bounds; thread (15, 0, 0) of block
  tile[threadIdx.x + past] = 0;
}

PLANTED(write_past_shared) {
  const cuda_emulator::GuardedScope guard;
  write_tile<<<1, 16, ON_STREAM>>>(1);
}

PLANTED(clean_write_shared) {
  const cuda_emulator::GuardedScope guard;
  write_tile<<<1, 16, ON_STREAM>>>(0);
}

__global__ void write_lists(int count) {
  extern __shared__ int lists[];
  // [watched] write_past_dynamic_shared: write out of bounds; thread (8, 0, 0) of block
  lists[threadIdx.x * count] = 0;
}

PLANTED(write_past_dynamic_shared) {
  const cuda_emulator::GuardedScope guard;
  write_lists<<<1, 9, 64, cuda_emulator::current_stream()>>>(2);
}

PLANTED(clean_write_dynamic_shared) {
  const cuda_emulator::GuardedScope guard;
  write_lists<<<1, 8, 64, cuda_emulator::current_stream()>>>(2);
}

__global__ void copy(const float* from, float* to) {
  // [watched] read_unwritten: nobody has written; thread (0, 0, 0) of block
  to[threadIdx.x] = from[threadIdx.x];
}

PLANTED(read_unwritten) {
  const cuda_emulator::GuardedScope guard;
  const Array<float> from(8), to(8);
  copy<<<1, 8, ON_STREAM>>>(from.data, to.data);
}

PLANTED(clean_read_written) {
  const cuda_emulator::GuardedScope guard;
  const auto from = Array<float>::zeros(8);
  const Array<float> between(8), to(8);
  copy<<<1, 8, ON_STREAM>>>(from.data, between.data);
  copy<<<1, 8, ON_STREAM>>>(between.data, to.data);
}

__global__ void read_freed_memory(const float* from, float* to) {
  // [watched] read_freed: read out of bounds; thread (0, 0, 0) of block
  to[threadIdx.x] = from[threadIdx.x];
}

PLANTED(read_freed) {
  const cuda_emulator::GuardedScope guard;
  const float* dangling = nullptr;
  {
    const auto from = Array<float>::zeros(8);
    dangling = from.data;
  }
  const Array<float> to(8);
  read_freed_memory<<<1, 8, ON_STREAM>>>(dangling, to.data);
}

__global__ void read_shared_of_other_block(int* out) {
  __shared__ int value;
  if (blockIdx.x == 0) value = 1;
  // [watched] read_unwritten_shared: nobody has written; thread (0, 0, 0) of block (1, 0, 0)
  out[blockIdx.x] = value;
}

PLANTED(read_unwritten_shared) {
  const cuda_emulator::GuardedScope guard;
  const Array<int> out(2);
  read_shared_of_other_block<<<2, 1, ON_STREAM>>>(out.data);
}

PLANTED(clean_shared_of_own_block) {
  const cuda_emulator::GuardedScope guard;
  const Array<int> out(1);
  read_shared_of_other_block<<<1, 1, ON_STREAM>>>(out.data);
}
