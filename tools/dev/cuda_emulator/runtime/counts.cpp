#include "counts.h"

#include <cinttypes>
#include <cstdio>
#include <cstdlib>

#include "settings.h"

namespace cuda_emulator {
namespace {

void print() {
  const Counts& c = counts();
  std::fprintf(stderr,
               "cuda_emulator: %" PRIu64 " launches, %" PRIu64 " blocks, %" PRIu64 " threads, %" PRIu64
               " switches, %" PRIu64 " barriers, %" PRIu64 " warp operations, %" PRIu64 " watched accesses, %.2f s\n",
               c.launches, c.blocks, c.threads, c.switches, c.barriers, c.warp_ops, c.accesses, c.seconds);
}

}  // namespace

Counts& counts() {
  static Counts* const one = [] {
    if (settings().stats) std::atexit(&print);
    return new Counts;
  }();
  return *one;
}

}  // namespace cuda_emulator

unsigned long cuda_emulator_left_out(int set_to_zero) {
  auto& count = cuda_emulator::counts().left_out;
  const auto seen = count;
  if (set_to_zero) count = 0;
  return seen;
}
