// CPU tensors over the memory of device tensors, so that CPU kernels work on them in place.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Storage.h>

#include <unordered_map>
#include <utility>

namespace emulated_device {

// The aliases of one operator's call.
class CpuAliases {
 public:
  // The CPU tensor with the same memory, sizes and strides; an undefined or a CPU tensor comes back as it is. Tensors
  // that share a storage get aliases that share one.
  at::Tensor alias(const at::Tensor& tensor);

  // The device tensor for a kernel's result: a view of an argument where it lies in an argument's alias, else a copy in
  // device memory.
  at::Tensor to_device(const at::Tensor& result);

  // Gives an argument that the kernel wrote the sizes, the strides and the memory that its alias has now.
  void take_back(const at::Tensor& tensor, const at::Tensor& alias);

 private:
  void return_grown_memory(const c10::Storage& cpu, const c10::Storage& device);

  std::unordered_map<const c10::StorageImpl*, c10::Storage> cpu_of_;
  std::unordered_map<const c10::StorageImpl*, c10::Storage> device_of_;
};

// Tells the emulator that the elements of a device tensor have been written.
void mark_written(const at::Tensor& tensor);

}  // namespace emulated_device
