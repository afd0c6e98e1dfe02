// Large tables that are zero and take memory only where they are used.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <stdexcept>

namespace cuda_emulator {

template <typename T>
T* map_memory(size_t count) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* at = mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE, flags, -1, 0);
  if (at == MAP_FAILED) throw std::runtime_error("cuda_emulator: no address space for the memory watch");
  return static_cast<T*>(at);
}

}  // namespace cuda_emulator
