#include "access_set.h"

#include <bit>

namespace cuda_emulator {

void AccessSet::become(Shape shape, const Access& access, AccessPool& pool) {
  if (shape_ == Shape::kLanes || shape_ == Shape::kWarps) pool.give_back(more_);
  shape_ = shape;
  last_ = access;
}

// Another lane of the warp: of the lanes before it stay those that no __syncwarp ordered.
void AccessSet::add_lane(const Access& access, AccessPool& pool) {
  if (shape_ == Shape::kOne) {
    if (order::is_before(last_)) return become(Shape::kOne, access, pool);
    more_ = pool.take();
    shape_ = Shape::kLanes;
    pool[more_].lanes = 1u << last_.thread % kWarp;
    pool[more_].of_lane[last_.thread % kWarp] = last_;
  }
  MoreAccesses& more = pool[more_];
  for (unsigned rest = more.lanes; rest; rest &= rest - 1) {
    const int lane = std::countr_zero(rest);
    if (order::is_before(more.of_lane[lane])) more.lanes &= ~(1u << lane);
  }
  more.lanes |= 1u << access.thread % kWarp;
  more.of_lane[access.thread % kWarp] = access;
  last_ = access;
}

void AccessSet::add(const Access& access, AccessPool& pool) {
  if (shape_ == Shape::kEarlierBlock) return;
  if (shape_ == Shape::kEmpty) return become(Shape::kOne, access, pool);
  if (order::is_other_block(last_)) return become(Shape::kEarlierBlock, last_, pool);
  if (!order::is_same_epoch(last_)) return become(Shape::kOne, access, pool);
  if (shape_ == Shape::kWarps) return;
  if (access.thread / kWarp == last_.thread / kWarp) return add_lane(access, pool);
  become(Shape::kOne, last_, pool);
  more_ = pool.take();
  shape_ = Shape::kWarps;
  pool[more_].of_lane[0] = access;
}

AccessSet AccessSet::copy(AccessPool& pool) const {
  AccessSet out = *this;
  if (shape_ != Shape::kLanes && shape_ != Shape::kWarps) return out;
  out.more_ = pool.take();
  pool[out.more_] = pool[more_];
  return out;
}

const Access* AccessSet::unordered(AccessPool& pool) const {
  if (shape_ == Shape::kEmpty) return nullptr;
  if (shape_ == Shape::kEarlierBlock || order::is_other_block(last_)) return &last_;
  if (!order::is_same_epoch(last_)) return nullptr;
  if (shape_ == Shape::kWarps) return order::is_before(last_) ? &pool[more_].of_lane[0] : &last_;
  if (shape_ == Shape::kOne) return order::is_before(last_) ? nullptr : &last_;
  for (unsigned rest = pool[more_].lanes; rest; rest &= rest - 1) {
    const Access& of_lane = pool[more_].of_lane[std::countr_zero(rest)];
    if (!order::is_before(of_lane)) return &of_lane;
  }
  return nullptr;
}

}  // namespace cuda_emulator
