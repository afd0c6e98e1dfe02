// Warp operations: a lane waits until every lane of its mask has come to the same one; the last to come makes all the
// results.
#include <bit>

#include "counts.h"
#include "report.h"
#include "schedule.h"
#include "skip.h"
#include "watch.h"

namespace cuda_emulator {
namespace {

std::string place(const Thread& t) { return std::string(name_of(t.op)) + " " + name_of(t.site); }

// The lane whose value a shuffle reads. As in CUDA a lane beyond the warp's end reads its own.
int source_lane(const Thread& t) {
  switch (t.op) {
    case WarpOp::kShuffle:
      return t.argument & (kWarp - 1);
    case WarpOp::kShuffleDown:
      return t.lane + t.argument < kWarp ? t.lane + t.argument : t.lane;
    case WarpOp::kShuffleXor:
      return (t.lane ^ t.argument) < kWarp ? t.lane ^ t.argument : t.lane;
    default:
      return t.lane;
  }
}

uint64_t result_of(const Thread& t, const Thread* warp) {
  uint64_t lanes = 0;
  for (int lane = 0; lane < kWarp; ++lane) {
    if (!(t.mask >> lane & 1)) continue;
    const bool in = t.op == WarpOp::kBallot ? warp[lane].value != 0 : warp[lane].value == t.value;
    lanes |= uint64_t(in) << lane;
  }
  if (t.op == WarpOp::kBallot || t.op == WarpOp::kMatchAny) return lanes;
  const int from = source_lane(t);
  if (!(t.mask >> from & 1))
    fail(place(t) + ": lane " + std::to_string(t.lane) + " reads lane " + std::to_string(from) +
         ", which is not in the mask " + std::to_string(t.mask));
  return warp[from].value;
}

// The lanes that wait already must be in the same operation.
void compare_with_waiting(const Thread& self, const Thread* warp, unsigned waiting) {
  for (unsigned rest = waiting; rest; rest &= rest - 1) {
    const Thread& other = warp[std::countr_zero(rest)];
    if (!(self.mask >> other.lane & 1) && !(other.mask >> self.lane & 1)) continue;  // two halves of a warp may part
    if (other.op != self.op || other.mask != self.mask || !same_site(other.site, self.site))
      fail("lanes of a warp meet in different operations: " + place(self) + " and " + place(other));
  }
}

}  // namespace

uint64_t warp_op(WarpOp op, unsigned mask, uint64_t value, int argument, Site site) {
  if (op == WarpOp::kSync && is_left_out(site)) return 0;
  Schedule& s = schedule();
  Thread& self = *s.current;
  ++counts().warp_ops;
  self.op = op, self.mask = mask, self.value = value, self.argument = argument, self.site = site;
  if (!(mask >> self.lane & 1)) fail(place(self) + ": the calling lane is not in its mask");
  self.state = State::kAtWarpOp;
  Thread* const warp = &s.threads[static_cast<size_t>(self.warp * kWarp)];
  unsigned& waiting = s.lanes_waiting[self.warp];
  compare_with_waiting(self, warp, waiting);
  waiting |= 1u << self.lane;
  if ((waiting & mask) == mask) {
    waiting &= ~mask;
    std::vector<Thread*> lanes;
    for (unsigned rest = mask; rest; rest &= rest - 1) lanes.push_back(warp + std::countr_zero(rest));
    for (Thread* t : lanes) t->result = result_of(*t, warp);
    // Votes and shuffles do not order memory, says CUDA.
    if (op == WarpOp::kSync) watch::warp_meets(self.warp, mask);
    make_ready(lanes);
  }
  wait();
  return self.result;
}

}  // namespace cuda_emulator
