#include "order.h"

#include <algorithm>
#include <cstring>

#include "../schedule.h"

namespace cuda_emulator::order {
namespace {

// Vector clocks of a warp's lanes: seen[a][b] is the latest clock of lane b that lane a has met; its own in seen[a][a].
struct WarpClocks {
  uint32_t epoch;  // of the block, to which the clocks belong
  bool there;
  uint32_t seen[kWarp][kWarp];
};

uint32_t block = 0, epoch = 0;
WarpClocks warps[kMostThreads / kWarp];

// The clocks of a warp; they begin anew whenever the block has met.
WarpClocks& clocks_of(int warp) {
  WarpClocks& w = warps[warp];
  if (w.there && w.epoch == epoch) return w;
  w.there = true;
  w.epoch = epoch;
  std::memset(w.seen, 0, sizeof w.seen);
  for (int lane = 0; lane < kWarp; ++lane) w.seen[lane][lane] = 1;
  return w;
}

}  // namespace

void begin_block(uint32_t number) {
  block = number;
  epoch = 0;
  for (WarpClocks& w : warps) w.there = false;
}

void block_meets() { ++epoch; }

void warp_meets(int warp, unsigned mask) {
  WarpClocks& w = clocks_of(warp);
  uint32_t joined[kWarp] = {};
  for (int lane = 0; lane < kWarp; ++lane)
    if (mask >> lane & 1)
      for (int other = 0; other < kWarp; ++other) joined[other] = std::max(joined[other], w.seen[lane][other]);
  for (int lane = 0; lane < kWarp; ++lane)
    if (mask >> lane & 1) {
      std::memcpy(w.seen[lane], joined, sizeof joined);
      ++w.seen[lane][lane];
    }
}

Access here(uint32_t pc) {
  const Thread& t = *schedule().current;
  return {block, epoch, clocks_of(t.warp).seen[t.lane][t.lane], pc, static_cast<uint16_t>(t.number), true};
}

bool is_other_block(const Access& access) { return access.block != block; }

bool is_same_epoch(const Access& access) { return access.block == block && access.epoch == epoch; }

bool is_before(const Access& access) {
  if (access.block != block) return false;
  const Thread& t = *schedule().current;
  if (access.epoch < epoch || access.thread == t.number) return true;
  const int lane = access.thread % kWarp;
  return access.thread / kWarp == t.warp && clocks_of(t.warp).seen[t.lane][lane] >= access.clock;
}

}  // namespace cuda_emulator::order
