// Looks at every memory access of a kernel: is it the device's memory, within its bounds, written before it is read,
// and ordered after what other threads did there?
#include "../watch.h"

#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "../counts.h"
#include "../report.h"
#include "../schedule.h"
#include "../settings.h"
#include "access.h"
#include "arena.h"
#include "shadow.h"
#include "source_line.h"

namespace cuda_emulator {
namespace watch {
namespace {

using shadow::Kind;

// Torch's other threads may run host code that is compiled with the kernels while this one is in a launch.
thread_local bool in_launch = false;
const char *frame_begin = nullptr, *frame_end = nullptr;

bool is_within(const char* at, size_t size, const void* begin, size_t room) {
  const auto* from = static_cast<const char*>(begin);
  return at >= from && at + size <= from + room;
}

// What a thread may use besides the device's memory.
bool is_own(const char* at, size_t size, Kind kind) {
  if (is_on_stack(*schedule().current->fiber, at)) return true;
  if (kind != Kind::kRead) return false;
  return is_within(at, size, frame_begin, static_cast<size_t>(frame_end - frame_begin)) ||
         is_within(at, size, &indices, sizeof indices) || is_constant(at, size);
}

std::string name_of_thread_of(const Access& access) {
  const dim3 &block = indices.block_size, &grid = indices.grid_size;
  const unsigned t = access.thread, b = access.block;
  return name_of_thread({t % block.x, t / block.x % block.y, t / block.x / block.y},
                        {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y});
}

[[noreturn]] void fail_with_race(const shadow::Race& race, const char* at, Kind kind, uint32_t pc) {
  std::ostringstream out;
  out << "race, " << name_of(kind) << " after " << name_of(race.earlier_kind) << ": " << source_line(pc) << ", after "
      << source_line(race.earlier.pc) << " by " << name_of_thread_of(race.earlier) << "; " << arena::describe(at);
  fail(out.str());
}

// The host cannot reach a card's memory: the process would end there.
[[noreturn]] void die_of_host_access(const char* at, Kind kind, uint32_t pc) {
  std::fprintf(stderr, "cuda_emulator: %s of device memory by the host: %s; %s\n", name_of(kind),
               source_line(pc).c_str(), arena::describe(at).c_str());
  std::abort();
}

}  // namespace

void launch_begins(const void* frame, size_t frame_size) {
  in_launch = true;
  frame_begin = static_cast<const char*>(frame);
  frame_end = frame_begin + frame_size;
  shadow::begin_launch();
}

void launch_ends() { in_launch = false; }

void block_begins() {
  const uint3& at = indices.block;
  const dim3& grid = indices.grid_size;
  order::begin_block((at.z * grid.y + at.y) * grid.x + at.x);
  shadow::begin_block();
}

void block_meets() { order::block_meets(); }

void warp_meets(int warp, unsigned mask) { order::warp_meets(warp, mask); }

void unwritten(void* begin, size_t bytes) { arena::set_unwritten(begin, bytes, true); }

void access(const void* address, size_t size, Kind kind, const void* caller) {
  const auto* at = static_cast<const char*>(address);
  if (!in_launch || !schedule().current) {
    if (arena::holds(at)) die_of_host_access(at, kind, pc_of(caller));
    return;
  }
  ++counts().accesses;
  if (!arena::holds(at)) {
    if (is_own(at, size, kind)) return;
    fail(std::string(name_of(kind)) + " of host memory in a kernel: " + source_line(pc_of(caller)));
  }
  if (settings().preempt > 0 && next_random() % static_cast<uint64_t>(settings().preempt) == 0) let_another_run();
  const uint32_t pc = pc_of(caller);
  if (!arena::is_live(at, size))
    fail(std::string(name_of(kind)) + " out of bounds: " + source_line(pc) + "; " + std::to_string(size) +
         " bytes at " + arena::describe(at));
  if (kind != Kind::kWrite && arena::has_unwritten(at, size))
    fail("read of memory that nobody has written: " + source_line(pc) + "; " + arena::describe(at));
  if (kind != Kind::kRead) arena::set_unwritten(at, size, false);
  const shadow::Race race = shadow::note(at, size, kind, order::here(pc));
  if (race.earlier.there) fail_with_race(race, at, kind, pc);
}

}  // namespace watch

void touch_atomically(void* address, size_t size, const void* caller) {
  watch::access(address, size, shadow::Kind::kAtomic, caller);
}

}  // namespace cuda_emulator
