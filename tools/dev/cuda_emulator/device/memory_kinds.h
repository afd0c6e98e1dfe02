// The two kinds of memory that the emulated device knows besides ordinary memory: its own and the host's pinned memory.
#pragma once

#include <c10/core/Allocator.h>

namespace emulated_device {

// Device memory as tensors on the device hold it.
c10::Allocator* device_allocator();

// Device memory under the name of the CPU, for CPU aliases of device tensors that a kernel may have to grow
// (cpu_alias.h).
c10::Allocator* aliased_allocator();

// Pinned memory of the host: ordinary memory whose addresses are remembered.
c10::Allocator* pinned_allocator();
bool is_pinned(const void* address);

}  // namespace emulated_device
