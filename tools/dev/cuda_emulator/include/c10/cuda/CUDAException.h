// In place of torch's header of this name.
#pragma once

#include <cuda_emulator/runtime.h>

#define C10_CUDA_CHECK(call) ::cuda_emulator::check(call, #call, ::cuda_emulator::Site{__FILE__, __LINE__})
#define C10_CUDA_KERNEL_LAUNCH_CHECK() ((void)0)  // the launch itself throws
