// Stacks that take turns on one host thread: a CUDA thread each.
#pragma once

namespace cuda_emulator {

struct Fiber;

// What a fiber does, again and again: it is called by the first switch to a free fiber.
void set_fiber_body(void (*body)());

// A free fiber, and back. There are as many as a block may have threads.
Fiber* take_fiber();
void give_back_fiber(Fiber* fiber);

// Called by the scheduler: runs the fiber until it calls switch_to_scheduler.
void switch_to_fiber(Fiber& fiber);
void switch_to_scheduler(Fiber& self);

// Makes all fibers anew after an error: what they have on their stacks is forgotten, no destructor runs.
void abandon_fibers();

// Whether the address lies on the fiber's stack.
bool is_on_stack(const Fiber& fiber, const void* address);

}  // namespace cuda_emulator
