// The running block's threads, and whose turn it is.
#pragma once

#include <cuda_emulator/runtime.h>

#include <string>
#include <vector>

#include "fibers.h"
#include "limits.h"

namespace cuda_emulator {

enum class State { kReady, kAtBarrier, kAtWarpOp, kReturned };

struct Thread {
  uint3 index;
  int number, warp, lane;
  State state;
  Fiber* fiber;  // null before its first turn and after its last
  Site site;     // of the barrier or warp operation where it waits
  // Its part in a warp operation; of a barrier the last line.
  WarpOp op;
  unsigned mask;
  int argument;
  uint64_t value, result;
};

struct Schedule {
  std::vector<Thread> threads;
  std::vector<Thread*> ready;  // the last one is next
  unsigned living, at_barrier;
  unsigned lanes_waiting[kMostThreads / kWarp];  // of each warp, in an operation
  Thread* current;                               // null outside kernels
  std::string error;                             // of the thread that ended the launch
};
Schedule& schedule();

// Runs `body(frame)` in every thread of one block. Returns the error that ended it, or nothing.
std::string run_block(const dim3& size, void (*body)(const void*), const void* frame);

// In a thread: lets the others run until somebody makes this one ready.
void wait();

// Ready threads are given in ascending order of their numbers.
void make_ready(const std::vector<Thread*>& threads);

// In a thread: lets another ready one run.
void let_another_run();

// In a thread that has set the error: it never runs again.
[[noreturn]] void leave_for_good();

// The order in which `blocks` blocks run: b -> (b * step + offset) % blocks.
struct BlockOrder {
  uint64_t step, offset;
};
BlockOrder block_order(uint64_t blocks);

uint64_t next_random();

// The same seed gives the same schedule from here on.
void restart_schedule();

}  // namespace cuda_emulator
