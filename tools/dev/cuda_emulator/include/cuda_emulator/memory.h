// The emulated device's memory: what the runtime gives to the PyTorch device. Free of torch.
#pragma once

#include <cstddef>

namespace cuda_emulator {

// Device memory, aligned to 64 bytes, filled with 0xFF (NaN, -1) and marked as not written; null for 0 bytes.
// Throws std::runtime_error where there is no room.
void* allocate(std::size_t bytes);

// Gives back what `allocate` returned, or null. Throws std::runtime_error for any other address.
void release(void* begin);

// A copy or an operator of the host wrote this memory. Does nothing in libraries that do not watch memory.
void host_wrote(const void* begin, std::size_t bytes);

// Whether the address lies in live device memory.
bool is_device_memory(const void* address);

}  // namespace cuda_emulator
