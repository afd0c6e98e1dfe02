// What the memory watch wants to know. In libraries that do not watch memory all of it is nothing.
#pragma once

#include <cstddef>

namespace cuda_emulator::watch {

#if defined(CUDA_EMULATOR_WATCHED)

// The frame holds the kernel's arguments, which it may read.
void launch_begins(const void* frame, size_t frame_size);
void launch_ends();
void block_begins();
void block_meets();                         // at __syncthreads
void warp_meets(int warp, unsigned mask);   // at __syncwarp
void unwritten(void* begin, size_t bytes);  // nobody has written this memory yet

#else

inline void launch_begins(const void*, size_t) {}
inline void launch_ends() {}
inline void block_begins() {}
inline void block_meets() {}
inline void warp_meets(int, unsigned) {}
inline void unwritten(void*, size_t) {}

#endif

}  // namespace cuda_emulator::watch
