// The device's random numbers: CPU kernels draw them, from a generator of the device's own.
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Generator.h>

namespace emulated_device {

at::Generator new_generator();
const at::Generator& default_generator();

// While one lives, the CPU's default generator stands where the device's generator stood; afterwards each has its own
// place again, and the device's has moved on. Kernels without a generator argument (native_dropout) are served so too.
class DrawsFromDevice {
 public:
  explicit DrawsFromDevice(const at::Generator& generator);
  ~DrawsFromDevice();
  DrawsFromDevice(const DrawsFromDevice&) = delete;
  DrawsFromDevice& operator=(const DrawsFromDevice&) = delete;

 private:
  void exchange();
  at::CPUGeneratorImpl& device_;
};

}  // namespace emulated_device
