// Accesses of a place of which none happened before another: as many as it takes to find a race with any later access.
#pragma once

#include "../limits.h"
#include "order.h"
#include "pool.h"

namespace cuda_emulator {

// More accesses than one: one a lane, or in the first place one of another warp than the set's.
struct MoreAccesses {
  uint32_t lanes = 0;
  Access of_lane[kWarp] = {};
};
using AccessPool = Pool<MoreAccesses>;

class AccessSet {
 public:
  // An access of the running thread; what happened before it is forgotten.
  void add(const Access& access, AccessPool& pool);

  // An access that did not happen before what the running thread does now, or null.
  const Access* unordered(AccessPool& pool) const;

  // The same accesses, to go ways of their own.
  AccessSet copy(AccessPool& pool) const;

 private:
  enum class Shape : uint8_t {
    kEmpty,
    kOne,
    kLanes,        // of one warp, an access a lane
    kWarps,        // two accesses of different warps: one of them races with whoever comes
    kEarlierBlock  // one access; blocks run one after the other, so it races with whoever comes
  };
  void become(Shape shape, const Access& access, AccessPool& pool);
  void add_lane(const Access& access, AccessPool& pool);

  Access last_;
  uint32_t more_;
  Shape shape_;
};

}  // namespace cuda_emulator
