#include "schedule.h"

#include <cstdlib>
#include <cstring>
#include <numeric>
#include <utility>

#include "counts.h"
#include "report.h"
#include "settings.h"

namespace cuda_emulator {

Indices indices;

namespace {

uint64_t random_state = 0;
void (*thread_body)(const void*) = nullptr;
const void* thread_frame = nullptr;

void run_thread() {
  thread_body(thread_frame);
  Schedule& s = schedule();
  s.current->state = State::kReturned;
  --s.living;
}

void place_threads(Schedule& s, const dim3& size) {
  const unsigned n = size.x * size.y * size.z;
  s.threads.resize(n);
  for (unsigned i = 0; i < n; ++i) {
    Thread& t = s.threads[i];
    t.index = {i % size.x, i / size.x % size.y, i / size.x / size.y};
    t.number = static_cast<int>(i);
    t.warp = t.number / kWarp;
    t.lane = t.number % kWarp;
    t.state = State::kReady;
    t.fiber = nullptr;
  }
}

Thread& take_next(Schedule& s) {
  if (settings().seed > 0) std::swap(s.ready[next_random() % s.ready.size()], s.ready.back());
  Thread& next = *s.ready.back();
  s.ready.pop_back();
  return next;
}

void resume(Schedule& s, Thread& thread) {
  if (!thread.fiber) thread.fiber = take_fiber();
  s.current = &thread;
  indices.thread = thread.index;
  ++counts().switches;
  switch_to_fiber(*thread.fiber);
  s.current = nullptr;
  if (thread.state != State::kReturned) return;
  give_back_fiber(thread.fiber);
  thread.fiber = nullptr;
}

}  // namespace

Schedule& schedule() {
  static Schedule* const one = new Schedule{};
  return *one;
}

uint64_t next_random() {  // xorshift64
  if (random_state == 0) random_state = 0x9E3779B97F4A7C15ull * static_cast<uint64_t>(settings().seed + 2) | 1;
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

void restart_schedule() { random_state = 0; }

std::string run_block(const dim3& size, void (*body)(const void*), const void* frame) {
  Schedule& s = schedule();
  place_threads(s, size);
  s.living = static_cast<unsigned>(s.threads.size());
  s.at_barrier = 0;
  std::memset(s.lanes_waiting, 0, sizeof s.lanes_waiting);
  s.error.clear();
  s.ready.clear();
  thread_body = body;
  thread_frame = frame;
  set_fiber_body(&run_thread);
  std::vector<Thread*> all;
  for (Thread& t : s.threads) all.push_back(&t);
  make_ready(all);
  while (!s.ready.empty()) {
    resume(s, take_next(s));
    if (!s.error.empty()) break;
  }
  if (s.error.empty() && s.living > 0) s.error = "threads wait for others that do not come: " + positions();
  if (!s.error.empty()) abandon_fibers();
  return s.error;
}

void wait() { switch_to_scheduler(*schedule().current->fiber); }

void make_ready(const std::vector<Thread*>& threads) {
  Schedule& s = schedule();
  for (Thread* t : threads) t->state = State::kReady;
  if (settings().seed < 0) {
    s.ready.insert(s.ready.end(), threads.begin(), threads.end());
  } else {
    s.ready.insert(s.ready.end(), threads.rbegin(), threads.rend());
  }
}

void let_another_run() {
  Schedule& s = schedule();
  s.ready.insert(s.ready.begin(), s.current);
  wait();
}

void leave_for_good() {
  wait();
  std::abort();  // the scheduler has thrown this stack away
}

BlockOrder block_order(uint64_t blocks) {
  if (settings().seed < 0) return {blocks - 1, blocks - 1};
  if (settings().seed == 0) return {1, 0};
  BlockOrder order{1, next_random() % blocks};
  do {
    order.step = next_random() % blocks + 1;
  } while (std::gcd(order.step, blocks) != 1);
  return order;
}

}  // namespace cuda_emulator
