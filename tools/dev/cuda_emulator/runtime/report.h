// Words for errors: which kernel, which line, which thread.
#pragma once

#include <cuda_emulator/runtime.h>

#include <string>

namespace cuda_emulator {

// file.cu:12
std::string name_of(const Site& site);
const char* name_of(WarpOp op);

bool same_site(const Site& a, const Site& b);

// thread (1, 0, 0) of block (2, 0, 0)
std::string name_of_thread(const uint3& thread, const uint3& block);

// An error of the running thread: ends the launch, which throws it. Outside a kernel it is thrown at once.
[[noreturn]] void fail(const std::string& message);

// How many threads of the block wait where.
std::string positions();

}  // namespace cuda_emulator
