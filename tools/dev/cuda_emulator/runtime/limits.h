// Limits of the emulated device, those of sm_80 and later.
#pragma once

#include <cstddef>

namespace cuda_emulator {

constexpr int kWarp = 32;
constexpr unsigned kMostThreads = 1024, kMostThreadsDeep = 64;     // of a block, and along z
constexpr unsigned kMostBlocks = 2147483647u, kMostRows = 65535u;  // of a grid along x, and along y and z
constexpr size_t kSharedWithoutAsking = 48 * 1024;                 // static memory, and dynamic without the attribute
constexpr unsigned char kUnwritten = 0xFF;                         // fills fresh memory: NaN, -1

// Most dynamic shared memory that a kernel may be launched with; the attribute raises it.
size_t dynamic_limit(const void* kernel);

}  // namespace cuda_emulator
