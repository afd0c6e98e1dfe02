// Memory of the host that a kernel cannot reach on a card, and memory of the device that the host cannot.
#include "planted.h"

using planted::Array;

__global__ void copy_word(const int* from, int* to) {
  // [watched] read_host_memory: read of host memory; thread (0, 0, 0) of block
  const int value = *from;
  // [watched] write_host_memory: write of host memory; thread (0, 0, 0) of block
  *to = value;
}

PLANTED(read_host_memory) {
  const cuda_emulator::GuardedScope guard;
  const int value = 1;
  const Array<int> to(1);
  copy_word<<<1, 1, ON_STREAM>>>(&value, to.data);
}

PLANTED(write_host_memory) {
  const cuda_emulator::GuardedScope guard;
  const auto from = Array<int>::zeros(1);
  int* heap = new int;
  copy_word<<<1, 1, ON_STREAM>>>(from.data, heap);
}

PLANTED(clean_copy_on_device) {
  const cuda_emulator::GuardedScope guard;
  const auto from = Array<int>::zeros(1);
  const Array<int> to(1);
  copy_word<<<1, 1, ON_STREAM>>>(from.data, to.data);
}

static int host_global = 3;

__global__ void read_global(int* out) {
  // [watched] read_host_global: read of host memory; thread (0, 0, 0) of block
  *out = host_global;
}

PLANTED(read_host_global) {
  const cuda_emulator::GuardedScope guard;
  host_global = int(reinterpret_cast<uintptr_t>(&guard) % 7);  // a value that the compiler does not know
  const Array<int> out(1);
  read_global<<<1, 1, ON_STREAM>>>(out.data);
}

struct Arguments {
  int values[40];
};

__global__ void sum_of_arguments(Arguments given, int* out) {
  int sum = 0;
  for (unsigned i = 0; i <= threadIdx.x; ++i) sum += given.values[i];
  out[threadIdx.x] = sum;
}

PLANTED(clean_arguments) {
  const cuda_emulator::GuardedScope guard;
  const Array<int> out(32);
  sum_of_arguments<<<1, 32, ON_STREAM>>>(Arguments{}, out.data);
}

__device__ int add_up(const int* values, int count) {
  int sum = 0;
  for (int i = 0; i < count; ++i) sum += values[i];
  return sum;
}

__global__ void use_local_array(int* out) {
  int local[8];
  for (int i = 0; i < 8; ++i) local[(i + threadIdx.x) % 8] = i;
  out[threadIdx.x] = add_up(local, 8);
}

PLANTED(clean_local_array) {
  const cuda_emulator::GuardedScope guard;
  const Array<int> out(32);
  use_local_array<<<1, 32, ON_STREAM>>>(out.data);
}

PLANTED(host_reads_device_memory) {
  const auto values = Array<int>::zeros(1);
  // [watched] host_reads_device_memory: read of device memory by the host
  host_global = *static_cast<volatile int*>(values.data);
}
