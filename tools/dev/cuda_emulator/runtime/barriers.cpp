// __syncthreads and __syncthreads_or: the last thread of the block to come makes all of them ready.
#include "counts.h"
#include "report.h"
#include "schedule.h"
#include "skip.h"
#include "watch.h"

namespace cuda_emulator {

// CUDA wants every thread of the block at the same barrier. A thread that has returned never comes: the schedule then
// runs out of ready threads.
bool sync_threads(Site site, bool predicate) {
  if (is_left_out(site)) return predicate;
  Schedule& s = schedule();
  Thread& self = *s.current;
  self.site = site;
  self.state = State::kAtBarrier;
  self.value = predicate;
  ++counts().barriers;
  if (++s.at_barrier == s.threads.size()) {
    std::vector<Thread*> all;
    uint64_t any = 0;
    for (Thread& t : s.threads) {
      if (!same_site(t.site, site))
        fail("threads of a block meet at different __syncthreads: " + name_of(t.site) + " and " + name_of(site) + ": " +
             positions());
      all.push_back(&t);
      any |= t.value;
    }
    for (Thread* t : all) t->result = any;
    s.at_barrier = 0;
    watch::block_meets();
    make_ready(all);
  }
  wait();
  return self.result != 0;
}

}  // namespace cuda_emulator
