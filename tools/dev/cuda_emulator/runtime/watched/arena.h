// All device and shared memory in one range of addresses, with a byte of notes for each byte of it.
#pragma once

#include <cstddef>
#include <string>

namespace cuda_emulator::arena {

constexpr size_t kBytes = size_t(8) << 30;
constexpr size_t kSharedZone = size_t(1) << 20;  // at the beginning: the running block's shared memory

bool holds(const void* at);
bool is_shared(const void* at);  // of what it holds
size_t offset_of(const void* at);

// Whether [at, at + size) lies in one live block of device memory or in one shared variable.
bool is_live(const void* at, size_t size);

// Whether nobody has written some of the bytes.
bool has_unwritten(const void* at, size_t size);
void set_unwritten(const void* at, size_t size, bool unwritten);

// "shared variable tile, byte 12", "byte 40 of a block of 256 bytes", "4 bytes after a block of 400 bytes".
std::string describe(const void* at);

}  // namespace cuda_emulator::arena
