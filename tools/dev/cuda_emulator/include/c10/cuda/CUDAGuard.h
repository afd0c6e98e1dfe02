// In place of torch's header of this name: the guard of the emulated device.
#pragma once

#include <c10/core/DeviceGuard.h>
#include <cuda_emulator/runtime.h>

namespace c10::cuda {

class CUDAGuard {
 public:
  explicit CUDAGuard(const c10::Device& device) : guard_(device) {
    TORCH_CHECK(device.is_privateuseone(), "Expected a device of the emulator, got ", device);
  }

 private:
  c10::DeviceGuard guard_;
  ::cuda_emulator::GuardedScope scope_;
};

}  // namespace c10::cuda
