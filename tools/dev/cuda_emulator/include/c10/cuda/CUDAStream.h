// In place of torch's header of this name: the one stream of the emulated device.
#pragma once

#include <c10/core/impl/VirtualGuardImpl.h>
#include <cuda_emulator/runtime.h>

namespace c10::cuda {

class CUDAStream {
 public:
  explicit CUDAStream(c10::DeviceIndex device) : device_(device) {}
  operator cudaStream_t() const { return ::cuda_emulator::current_stream(); }
  c10::DeviceIndex device_index() const { return device_; }

 private:
  c10::DeviceIndex device_;
};

inline CUDAStream getCurrentCUDAStream() {
  return CUDAStream(c10::impl::VirtualGuardImpl(c10::DeviceType::PrivateUse1).getDevice().index());
}

}  // namespace c10::cuda
