#include "fibers.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "limits.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__)
#error "The emulator switches stacks in x86-64 assembly; add the same for this processor."
#endif

// Saves the registers that a function must keep and the stack pointer to *save, and goes on where `load` was saved.
extern "C" void cuda_emulator_switch(void** save, void* load);
asm(R"(
.text
.globl cuda_emulator_switch
.hidden cuda_emulator_switch
.type cuda_emulator_switch,@function
cuda_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_emulator_switch,.-cuda_emulator_switch
)");

namespace cuda_emulator {

struct Fiber {
  char* stack;       // its lowest address
  void* sp;          // where it goes on
  void* fake_stack;  // AddressSanitizer's
};

namespace {

constexpr size_t kStack = 256 * 1024, kPage = 4096;

void (*body)() = nullptr;
char* stacks = nullptr;
std::vector<Fiber> fibers;
std::vector<Fiber*> free_fibers;
void* scheduler_sp = nullptr;

// AddressSanitizer wants to be told which stack runs.
#if defined(__SANITIZE_ADDRESS__)
const void* scheduler_stack = nullptr;
size_t scheduler_stack_size = 0;
void leaving(void** fake_stack, const void* to, size_t size) { __sanitizer_start_switch_fiber(fake_stack, to, size); }
void arrived_in_fiber(void* fake_stack) {
  __sanitizer_finish_switch_fiber(fake_stack, &scheduler_stack, &scheduler_stack_size);
}
void arrived_in_scheduler(void* fake_stack) { __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr); }
void forget_frames(void* stack) { __asan_unpoison_memory_region(stack, kStack - kPage); }
#else
const void* scheduler_stack = nullptr;
size_t scheduler_stack_size = 0;
void leaving(void**, const void*, size_t) {}
void arrived_in_fiber(void*) {}
void arrived_in_scheduler(void*) {}
void forget_frames(void*) {}
#endif

Fiber* entering = nullptr;

void fiber_main() {
  Fiber& self = *entering;
  arrived_in_fiber(nullptr);
  for (;;) {
    body();
    switch_to_scheduler(self);
  }
}

char* reserve_stacks() {
  const size_t bytes = kStack * kMostThreads;
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) throw std::runtime_error("cuda_emulator: no room for the stacks of a block's threads");
  for (unsigned i = 0; i < kMostThreads; ++i)  // a page that ends the process where a stack overflows
    mprotect(static_cast<char*>(at) + i * kStack, kPage, PROT_NONE);
  return static_cast<char*>(at);
}

// The stack of a fiber that has not run yet: six registers to load, and the address to return to.
void prepare(Fiber& fiber) {
  forget_frames(fiber.stack);
  char* top = fiber.stack + kStack - kPage;
  char* sp = top - 64;
  std::memset(sp, 0, 64);
  void (*entry)() = &fiber_main;
  std::memcpy(sp + 48, &entry, sizeof entry);  // fiber_main then finds its stack aligned as after a call
  fiber.sp = sp;
  fiber.fake_stack = nullptr;
}

}  // namespace

void set_fiber_body(void (*what)()) { body = what; }

void abandon_fibers() {
  if (!stacks) stacks = reserve_stacks();
  fibers.resize(kMostThreads);
  free_fibers.clear();
  for (unsigned i = kMostThreads; i-- > 0;) {
    fibers[i].stack = stacks + i * kStack + kPage;
    prepare(fibers[i]);
    free_fibers.push_back(&fibers[i]);
  }
}

Fiber* take_fiber() {
  if (fibers.empty()) abandon_fibers();
  Fiber* fiber = free_fibers.back();
  free_fibers.pop_back();
  return fiber;
}

void give_back_fiber(Fiber* fiber) { free_fibers.push_back(fiber); }

void switch_to_fiber(Fiber& fiber) {
  entering = &fiber;
  void* fake_stack = nullptr;
  leaving(&fake_stack, fiber.stack, kStack - kPage);
  cuda_emulator_switch(&scheduler_sp, fiber.sp);
  arrived_in_scheduler(fake_stack);
}

void switch_to_scheduler(Fiber& self) {
  leaving(&self.fake_stack, scheduler_stack, scheduler_stack_size);
  cuda_emulator_switch(&self.sp, scheduler_sp);
  arrived_in_fiber(self.fake_stack);
}

bool is_on_stack(const Fiber& fiber, const void* address) {
  const auto* at = static_cast<const char*>(address);
  return at >= fiber.stack && at < fiber.stack + kStack - kPage;
}

}  // namespace cuda_emulator
