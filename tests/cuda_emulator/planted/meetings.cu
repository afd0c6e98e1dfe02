// Threads that wait for others which do not come, or meet at the wrong place.
#include "planted.h"

using planted::Array;

__global__ void meet_apart() {
  if (threadIdx.x < 32)
    // [both] divergent_barrier: different __syncthreads
    __syncthreads();
  else
    // [both] divergent_barrier: thread (63, 0, 0) of block (0, 0, 0)
    __syncthreads();
}

PLANTED(divergent_barrier) {
  const cuda_emulator::GuardedScope guard;
  meet_apart<<<1, 64, ON_STREAM>>>();
}

__global__ void return_early(unsigned n) {
  if (threadIdx.x >= n) return;
  // [both] barrier_not_reached: 3 at __syncthreads; 61 returned
  __syncthreads();
}

PLANTED(barrier_not_reached) {
  const cuda_emulator::GuardedScope guard;
  return_early<<<1, 64, ON_STREAM>>>(3);
}

PLANTED(clean_barrier_of_all) {
  const cuda_emulator::GuardedScope guard;
  return_early<<<2, 64, ON_STREAM>>>(64);
}

__global__ void vote_of(unsigned n, unsigned* out) {
  // [both] missing_lane: 31 at __ballot_sync; 1 returned
  if (threadIdx.x < n) out[threadIdx.x] = __ballot_sync(kAll, true);
}

PLANTED(missing_lane) {
  const cuda_emulator::GuardedScope guard;
  const Array<unsigned> out(32);
  vote_of<<<1, 32, ON_STREAM>>>(31, out.data);
}

PLANTED(clean_vote_of_all) {
  const cuda_emulator::GuardedScope guard;
  const Array<unsigned> out(32);
  vote_of<<<1, 32, ON_STREAM>>>(32, out.data);
}

__global__ void sync_lower_half() {
  // [both] lane_outside_its_mask: not in its mask; thread (16, 0, 0)
  __syncwarp(0x0000ffffu);
}

PLANTED(lane_outside_its_mask) {
  const cuda_emulator::GuardedScope guard;
  sync_lower_half<<<1, 32, ON_STREAM>>>();
}

__global__ void read_outside_mask(int* out) {
  // [both] shuffle_outside_mask: not in the mask
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_down_sync(0x0000ffffu, 1, 8);
}

PLANTED(shuffle_outside_mask) {
  const cuda_emulator::GuardedScope guard;
  const Array<int> out(16);
  read_outside_mask<<<1, 32, ON_STREAM>>>(out.data);
}

__global__ void vote_and_shuffle(int* out) {
  if (threadIdx.x % 2 == 0)
    // [both] different_operations: different operations
    out[threadIdx.x] = int(__ballot_sync(kAll, true));
  else
    // [both] different_operations: thread (1, 0, 0)
    out[threadIdx.x] = __shfl_sync(kAll, 1, 0);
}

PLANTED(different_operations) {
  const cuda_emulator::GuardedScope guard;
  const Array<int> out(32);
  vote_and_shuffle<<<1, 32, ON_STREAM>>>(out.data);
}

// Every operation has the result that CUDA gives; lanes with another one are counted.
__global__ void all_operations(int* wrong) {
  const int lane = int(threadIdx.x % 32);
  bool right = __ballot_sync(kAll, lane % 3 == 0) == 0x49249249u;
  right &= __shfl_sync(kAll, lane * 10, lane + 1) == (lane + 1) % 32 * 10;
  right &= __shfl_down_sync(kAll, lane, 4) == (lane < 28 ? lane + 4 : lane);
  right &= __shfl_xor_sync(kAll, 0.5 * lane, 3) == 0.5 * (lane ^ 3);
  right &= __match_any_sync(kAll, lane % 2 ? -1 : 7) == (lane % 2 ? 0xaaaaaaaau : 0x55555555u);
  if (!right) atomicAdd(wrong, 1);
}

PLANTED(clean_results_of_operations) {
  const cuda_emulator::GuardedScope guard;
  const auto wrong = Array<int>::zeros(1);
  all_operations<<<2, 64, ON_STREAM>>>(wrong.data);
  cuda_emulator::check(wrong.first(), "lanes with a wrong result", {__FILE__, __LINE__});
}

__global__ void any_of_block(unsigned asking, int* wrong) {
  const bool any = __syncthreads_or(threadIdx.x == asking);
  if (any != (asking < blockDim.x)) atomicAdd(wrong, 1);
}

PLANTED(clean_or_of_block) {
  const cuda_emulator::GuardedScope guard;
  const auto wrong = Array<int>::zeros(1);
  any_of_block<<<2, 64, ON_STREAM>>>(40, wrong.data);
  any_of_block<<<2, 64, ON_STREAM>>>(64, wrong.data);
  cuda_emulator::check(wrong.first(), "threads with a wrong result", {__FILE__, __LINE__});
}
