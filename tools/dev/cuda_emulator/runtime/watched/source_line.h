// From an address of the library's code to the line of the source.
#pragma once

#include <cstdint>
#include <string>

namespace cuda_emulator {

// Code addresses as the watch keeps them: from the library's beginning.
uint32_t pc_of(const void* return_address);

// "file.cu:12", and for inlined code " < " and the caller's line; the bare address if addr2line does not know it.
std::string source_line(uint32_t pc);

// Whether the address lies in the library's constants, which every thread may read.
bool is_constant(const void* at, size_t size);

}  // namespace cuda_emulator
