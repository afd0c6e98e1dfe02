// What the emulator did: printed at the end of the process where CUDA_EMULATOR_STATS asks for it.
#pragma once

#include <cstdint>

namespace cuda_emulator {

struct Counts {
  uint64_t launches = 0, blocks = 0, threads = 0, switches = 0, barriers = 0, warp_ops = 0, accesses = 0, left_out = 0;
  double seconds = 0;
};
Counts& counts();

}  // namespace cuda_emulator

// How often a thread passed the barrier that CUDA_EMULATOR_SKIP names, since it was set to zero.
extern "C" __attribute__((visibility("default"))) unsigned long cuda_emulator_left_out(int set_to_zero);
