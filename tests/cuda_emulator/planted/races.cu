// Accesses of one place by two threads that nothing orders, and the same accesses ordered.
#include "planted.h"

using planted::Array;

// Each thread reads what the one before it has written; thread 0 its own.
template <bool kBarrier>
__global__ void write_then_read(int* out) {
  __shared__ int tile[64];
  // [watched] race_read_after_write: race, read after write
  tile[threadIdx.x] = 1;
  if (kBarrier) __syncthreads();
  // [watched] race_read_after_write: thread (1, 0, 0) of block (0, 0, 0)
  out[threadIdx.x] = tile[threadIdx.x == 0 ? 0 : threadIdx.x - 1];
}

PLANTED(race_read_after_write) {
  const cuda_emulator::GuardedScope guard;
  const Array<int> out(64);
  write_then_read<false><<<1, 2, ON_STREAM>>>(out.data);
}

PLANTED(clean_read_after_barrier) {
  const cuda_emulator::GuardedScope guard;
  const Array<int> out(64);
  write_then_read<true><<<1, 64, ON_STREAM>>>(out.data);
}

template <bool kBarrier>
__global__ void read_then_write(int* values, int* out) {
  // [watched] race_write_after_read: race, write after read
  out[threadIdx.x] = values[0];
  if (kBarrier) __syncthreads();
  // [watched] race_write_after_read: thread (63, 0, 0)
  if (threadIdx.x == blockDim.x - 1) values[0] = 2;
}

PLANTED(race_write_after_read) {  // all threads read, the last one of them too
  const cuda_emulator::GuardedScope guard;
  const auto values = Array<int>::zeros(1);
  const Array<int> out(64);
  read_then_write<false><<<1, 64, ON_STREAM>>>(values.data, out.data);
}

PLANTED(clean_write_after_reads_and_barrier) {
  const cuda_emulator::GuardedScope guard;
  const auto values = Array<int>::zeros(1);
  const Array<int> out(64);
  read_then_write<true><<<1, 64, ON_STREAM>>>(values.data, out.data);
}

__global__ void write_both(int* value, int step) {
  // [watched] race_write_after_write: race, write after write; thread (1, 0, 0)
  *value = 7 + int(threadIdx.x) * step;
}

PLANTED(race_write_after_write) {
  const cuda_emulator::GuardedScope guard;
  const Array<int> value(1);
  write_both<<<1, 2, ON_STREAM>>>(value.data, 1);
}

__global__ void write_equal(int* value) {
  // [watched] race_equal_values: race, write after write; thread (1, 0, 0)
  *value = 7;
}

PLANTED(race_equal_values) {
  const cuda_emulator::GuardedScope guard;
  const Array<int> value(1);
  write_equal<<<1, 2, ON_STREAM>>>(value.data);
}

PLANTED(clean_one_writer_in_each_of_two_launches) {
  const cuda_emulator::GuardedScope guard;
  const Array<int> value(1);
  write_equal<<<1, 1, ON_STREAM>>>(value.data);
  write_equal<<<1, 1, ON_STREAM>>>(value.data);
}

__global__ void sum_in_blocks(int* total) {
  // [watched] race_of_blocks: race, read after write; thread (0, 0, 0) of block (1, 0, 0)
  *total = *total + 1;
}

PLANTED(race_of_blocks) {
  const cuda_emulator::GuardedScope guard;
  const auto total = Array<int>::zeros(1);
  sum_in_blocks<<<2, 1, ON_STREAM>>>(total.data);
}

__global__ void read_then_write_in_last_block(int* value, int* out) {
  out[blockIdx.x] = *value;
  // [watched] race_with_reader_of_earlier_block: race, write after read; block (2, 0, 0)
  if (blockIdx.x == 2) *value = 1;
}

PLANTED(race_with_reader_of_earlier_block) {
  const cuda_emulator::GuardedScope guard;
  const auto value = Array<int>::zeros(1);
  const Array<int> out(3);
  read_then_write_in_last_block<<<3, 1, ON_STREAM>>>(value.data, out.data);
}

__global__ void count_then_read(int* count, int* out) {
  // [watched] race_read_after_atomic: race, read after atomic
  if (threadIdx.x == 0) atomicAdd(count, 1);
  // [watched] race_read_after_atomic: thread (1, 0, 0) of block
  if (threadIdx.x == 1) *out = *count;
}

PLANTED(race_read_after_atomic) {
  const cuda_emulator::GuardedScope guard;
  const auto count = Array<int>::zeros(1);
  const Array<int> out(1);
  count_then_read<<<1, 2, ON_STREAM>>>(count.data, out.data);
}

__global__ void read_then_count(int* count, int* out) {
  if (threadIdx.x == 0) *out = *count;
  // [watched] race_atomic_after_read: race, atomic after read; thread (1, 0, 0)
  if (threadIdx.x == 1) atomicAdd(count, 1);
}

PLANTED(race_atomic_after_read) {
  const cuda_emulator::GuardedScope guard;
  const auto count = Array<int>::zeros(1);
  const Array<int> out(1);
  read_then_count<<<1, 2, ON_STREAM>>>(count.data, out.data);
}

// Thread 1 was the last to add; the plain read races with the others' all the same.
__global__ void count_and_read_by_last(int* count, int* out) {
  atomicAdd(count, 1);
  // [watched] race_read_by_last_adder: race, read after atomic; thread (1, 0, 0)
  if (threadIdx.x == 1) *out = *count;
}

PLANTED(race_read_by_last_adder) {
  const cuda_emulator::GuardedScope guard;
  const auto count = Array<int>::zeros(1);
  const Array<int> out(1);
  count_and_read_by_last<<<1, 2, ON_STREAM>>>(count.data, out.data);
}

__global__ void set_and_count(int* count) {
  if (threadIdx.x == 0) *count = 0;
  // [watched] race_atomic_after_write: race, atomic after write; thread (1, 0, 0)
  atomicAdd(count, 1);
}

PLANTED(race_atomic_after_write) {
  const cuda_emulator::GuardedScope guard;
  const Array<int> count(1);
  set_and_count<<<1, 2, ON_STREAM>>>(count.data);
}

__global__ void count_all(int* count, unsigned long long* key) {
  atomicAdd(count, 1);
  atomicMin(count + 1, int(threadIdx.x));
  atomicCAS(key, 0ull, 1ull);
}

PLANTED(clean_atomics_of_all_blocks) {
  const cuda_emulator::GuardedScope guard;
  const auto count = Array<int>::zeros(2);
  const auto key = Array<unsigned long long>::zeros(1);
  count_all<<<3, 64, ON_STREAM>>>(count.data, key.data);
}

__global__ void write_bytes(char* out) { out[threadIdx.x] = 1; }
__global__ void write_shorts(short* out) { out[threadIdx.x] = 1; }

PLANTED(clean_neighbouring_bytes) {
  const cuda_emulator::GuardedScope guard;
  const Array<char> bytes(64);
  const Array<short> shorts(64);
  write_bytes<<<1, 64, ON_STREAM>>>(bytes.data);
  write_shorts<<<1, 64, ON_STREAM>>>(shorts.data);
}

__global__ void write_word_and_byte(int* word) {
  if (threadIdx.x == 0) *word = 0;
  // [watched] race_of_byte_in_word: race, write after write
  if (threadIdx.x == 1) reinterpret_cast<char*>(word)[3] = 1;
}

PLANTED(race_of_byte_in_word) {
  const cuda_emulator::GuardedScope guard;
  const Array<int> word(1);
  write_word_and_byte<<<1, 2, ON_STREAM>>>(word.data);
}
