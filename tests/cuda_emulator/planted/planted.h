// What the planted kernels share: cases by name, and arrays on the device.
#pragma once

#include <cuda_emulator/memory.h>
#include <cuda_emulator/runtime.h>

#include <cstddef>

constexpr unsigned kAll = 0xffffffffu;

namespace planted {

struct Case {
  Case(const char* name, void (*run)());
};

// A case: the host function that launches its kernel.
#define PLANTED(name)                                   \
  static void name();                                   \
  static const planted::Case case_##name(#name, &name); \
  static void name()

// The launch's last two arguments, as a host function of the package has them.
#define ON_STREAM 0, ::cuda_emulator::current_stream()

// As torch's copies do: by code that nobody watches.
void copy_to_host(void* to, const void* from, size_t bytes);
void set_to_zero(void* data, size_t bytes);

template <typename T>
struct Array {
  T* const data;
  explicit Array(size_t count) : data(static_cast<T*>(cuda_emulator::allocate(count * sizeof(T)))) {}
  ~Array() { cuda_emulator::release(data); }
  static Array zeros(size_t count) { return Array(count, true); }
  // The first element, copied to the host.
  T first() const {
    T value;
    copy_to_host(&value, data, sizeof value);
    return value;
  }

 private:
  Array(size_t count, bool) : Array(count) { set_to_zero(data, count * sizeof(T)); }
};

}  // namespace planted
