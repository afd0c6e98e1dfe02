// __syncthreads: the last thread of the block to come makes all of them ready.
#include "counts.h"
#include "report.h"
#include "schedule.h"
#include "skip.h"
#include "watch.h"

namespace cuda_emulator {

// CUDA wants every thread of the block at the same barrier. A thread that has returned never comes: the schedule then
// runs out of ready threads.
void sync_threads(Site site) {
  if (is_left_out(site)) return;
  Schedule& s = schedule();
  Thread& self = *s.current;
  self.site = site;
  self.state = State::kAtBarrier;
  ++counts().barriers;
  if (++s.at_barrier == s.threads.size()) {
    std::vector<Thread*> all;
    for (Thread& t : s.threads) {
      if (!same_site(t.site, site))
        fail("threads of a block meet at different __syncthreads: " + name_of(t.site) + " and " + name_of(site) + ": " +
             positions());
      all.push_back(&t);
    }
    s.at_barrier = 0;
    watch::block_meets();
    make_ready(all);
  }
  wait();
}

}  // namespace cuda_emulator
