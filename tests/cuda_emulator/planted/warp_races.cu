// Races among the lanes of a warp: only __syncwarp orders memory, and only for the lanes in its mask.
#include "planted.h"

using planted::Array;

constexpr unsigned kLower = 0x0000ffffu, kUpper = 0xffff0000u;

__global__ void pass_on_without_order(int* out) {
  __shared__ int tile[32];
  tile[threadIdx.x] = 1;
  // [watched] race_in_warp: race, read after write; thread (1, 0, 0)
  out[threadIdx.x] = threadIdx.x == 0 ? 0 : tile[threadIdx.x - 1];
}

PLANTED(race_in_warp) {
  const cuda_emulator::GuardedScope guard;
  const Array<int> out(32);
  pass_on_without_order<<<1, 32, ON_STREAM>>>(out.data);
}

__global__ void pass_on(int* out) {
  __shared__ int tile[32];
  tile[threadIdx.x] = 1;
  __syncwarp();
  out[threadIdx.x] = tile[31 - threadIdx.x];
  __syncwarp();
  tile[threadIdx.x] = 2;
}

PLANTED(clean_in_warp) {
  const cuda_emulator::GuardedScope guard;
  const Array<int> out(32);
  pass_on<<<1, 32, ON_STREAM>>>(out.data);
}

// __syncwarp says nothing about another warp.
__global__ void pass_to_other_warp(int* out) {
  __shared__ int tile[64];
  tile[threadIdx.x] = 1;
  __syncwarp();
  // [watched] race_of_warps: race, read after write; thread (32, 0, 0)
  out[threadIdx.x] = threadIdx.x < 32 ? 0 : tile[threadIdx.x - 32];
}

PLANTED(race_of_warps) {
  const cuda_emulator::GuardedScope guard;
  const Array<int> out(64);
  pass_to_other_warp<<<1, 64, ON_STREAM>>>(out.data);
}

__global__ void pass_on_after_vote(int* out) {
  __shared__ int tile[32];
  tile[threadIdx.x] = 1;
  const unsigned all = __ballot_sync(kAll, true);
  // [watched] race_after_ballot: race, read after write; thread (0, 0, 0)
  out[threadIdx.x] = tile[31 - threadIdx.x] + int(all);
}

PLANTED(race_after_ballot) {
  const cuda_emulator::GuardedScope guard;
  const Array<int> out(32);
  pass_on_after_vote<<<1, 32, ON_STREAM>>>(out.data);
}

__global__ void pass_on_after_shuffle(int* out) {
  __shared__ int tile[32];
  tile[threadIdx.x] = 1;
  const int other = __shfl_xor_sync(kAll, int(threadIdx.x), 1);
  // [watched] race_after_shuffle: race, read after write; thread (0, 0, 0)
  out[threadIdx.x] = tile[other];
}

PLANTED(race_after_shuffle) {
  const cuda_emulator::GuardedScope guard;
  const Array<int> out(32);
  pass_on_after_shuffle<<<1, 32, ON_STREAM>>>(out.data);
}

// The halves of a warp meet apart; the upper one then reads at a distance of `by`.
__global__ void pass_within_halves(int* out, int by) {
  __shared__ int tile[32];
  tile[threadIdx.x] = 1;
  __syncwarp(threadIdx.x < 16 ? kLower : kUpper);
  // [watched] race_of_halves: race, read after write; thread (16, 0, 0)
  out[threadIdx.x] = tile[threadIdx.x < 16 ? threadIdx.x : threadIdx.x ^ by];
}

PLANTED(race_of_halves) {
  const cuda_emulator::GuardedScope guard;
  const Array<int> out(32);
  pass_within_halves<<<1, 32, ON_STREAM>>>(out.data, 16);
}

PLANTED(clean_within_halves) {
  const cuda_emulator::GuardedScope guard;
  const Array<int> out(32);
  pass_within_halves<<<1, 32, ON_STREAM>>>(out.data, 15);
}

// Lane 31 writes what all lanes have read; it has not met the lower half since.
__global__ void read_by_all_then_write(int* value, int* out, unsigned mask) {
  out[threadIdx.x] = *value;
  if (mask >> threadIdx.x & 1) __syncwarp(mask);
  // [watched] race_with_reader_outside_mask: race, write after read; thread (31, 0, 0)
  if (threadIdx.x == 31) *value = 1;
}

PLANTED(race_with_reader_outside_mask) {
  const cuda_emulator::GuardedScope guard;
  const auto value = Array<int>::zeros(1);
  const Array<int> out(32);
  read_by_all_then_write<<<1, 32, ON_STREAM>>>(value.data, out.data, kUpper);
}

PLANTED(clean_write_after_all_readers_met) {
  const cuda_emulator::GuardedScope guard;
  const auto value = Array<int>::zeros(1);
  const Array<int> out(32);
  read_by_all_then_write<<<1, 32, ON_STREAM>>>(value.data, out.data, kAll);
}
