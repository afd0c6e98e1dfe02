// What happened before what within a launch. Only __syncthreads orders accesses of a block's threads, and __syncwarp
// those of the lanes in its mask; nothing orders accesses of different blocks.
#pragma once

#include <cstdint>

namespace cuda_emulator {

struct Access {
  uint32_t block;   // its number in the grid
  uint32_t epoch;   // how often the block had met
  uint32_t clock;   // the lane's, since the block met last
  uint32_t pc;      // of the code, from the library's beginning
  uint16_t thread;  // its number in the block
  bool there;
};

namespace order {

void begin_block(uint32_t block);
void block_meets();
void warp_meets(int warp, unsigned mask);

// An access of the running thread, now.
Access here(uint32_t pc);

// Whether an access of this launch is over for the running thread.
bool is_before(const Access& access);

bool is_same_epoch(const Access& access);  // since the running block met last
bool is_other_block(const Access& access);

}  // namespace order
}  // namespace cuda_emulator
