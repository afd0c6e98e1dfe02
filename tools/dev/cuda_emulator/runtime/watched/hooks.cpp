// What g++ calls for each memory access under -fsanitize=thread, in place of ThreadSanitizer's own library.
#include "access.h"

#define CUDA_EMULATOR_HOOK(name, size, kind)                                                                \
  void name(void* at) {                                                                                     \
    cuda_emulator::watch::access(at, size, cuda_emulator::shadow::Kind::kind, __builtin_return_address(0)); \
  }
#define CUDA_EMULATOR_HOOKS(size)                              \
  CUDA_EMULATOR_HOOK(__tsan_read##size, size, kRead)           \
  CUDA_EMULATOR_HOOK(__tsan_write##size, size, kWrite)         \
  CUDA_EMULATOR_HOOK(__tsan_unaligned_read##size, size, kRead) \
  CUDA_EMULATOR_HOOK(__tsan_unaligned_write##size, size, kWrite)

extern "C" {

CUDA_EMULATOR_HOOKS(1)
CUDA_EMULATOR_HOOKS(2)
CUDA_EMULATOR_HOOKS(4)
CUDA_EMULATOR_HOOKS(8)
CUDA_EMULATOR_HOOKS(16)

void __tsan_read_range(void* at, size_t size) {
  cuda_emulator::watch::access(at, size, cuda_emulator::shadow::Kind::kRead, __builtin_return_address(0));
}
void __tsan_write_range(void* at, size_t size) {
  cuda_emulator::watch::access(at, size, cuda_emulator::shadow::Kind::kWrite, __builtin_return_address(0));
}

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

// C++ atomics: the host's reference counts. Of what may be called, a missing one is named by the linker.
#define CUDA_EMULATOR_NOTE(bits)                                                                \
  cuda_emulator::watch::access((const void*)at, bits / 8, cuda_emulator::shadow::Kind::kAtomic, \
                               __builtin_return_address(0))
#define CUDA_EMULATOR_FETCH(bits, T, op)                             \
  T __tsan_atomic##bits##_fetch_##op(volatile T* at, T value, int) { \
    CUDA_EMULATOR_NOTE(bits);                                        \
    return __atomic_fetch_##op(at, value, __ATOMIC_SEQ_CST);         \
  }
#define CUDA_EMULATOR_EXCHANGE(bits, T, strength, weak)                                                   \
  int __tsan_atomic##bits##_compare_exchange_##strength(volatile T* at, T* expected, T value, int, int) { \
    CUDA_EMULATOR_NOTE(bits);                                                                             \
    return __atomic_compare_exchange_n(at, expected, value, weak, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);    \
  }
#define CUDA_EMULATOR_ATOMICS(bits, T)                             \
  T __tsan_atomic##bits##_load(const volatile T* at, int) {        \
    CUDA_EMULATOR_NOTE(bits);                                      \
    return __atomic_load_n(at, __ATOMIC_SEQ_CST);                  \
  }                                                                \
  void __tsan_atomic##bits##_store(volatile T* at, T value, int) { \
    CUDA_EMULATOR_NOTE(bits);                                      \
    __atomic_store_n(at, value, __ATOMIC_SEQ_CST);                 \
  }                                                                \
  T __tsan_atomic##bits##_exchange(volatile T* at, T value, int) { \
    CUDA_EMULATOR_NOTE(bits);                                      \
    return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST);       \
  }                                                                \
  CUDA_EMULATOR_FETCH(bits, T, add)                                \
  CUDA_EMULATOR_FETCH(bits, T, sub)                                \
  CUDA_EMULATOR_FETCH(bits, T, and)                                \
  CUDA_EMULATOR_FETCH(bits, T, or)                                 \
  CUDA_EMULATOR_EXCHANGE(bits, T, strong, false)                   \
  CUDA_EMULATOR_EXCHANGE(bits, T, weak, true)

CUDA_EMULATOR_ATOMICS(8, uint8_t)
CUDA_EMULATOR_ATOMICS(32, uint32_t)
CUDA_EMULATOR_ATOMICS(64, uint64_t)
void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

}  // extern "C"
