// Aliases: a CPU storage over the same bytes that owns nothing, and whose allocator is the emulator's.
#include "cpu_alias.h"

#include <cuda_emulator/memory.h>

#include "memory_kinds.h"

namespace emulated_device {
namespace {

at::Tensor tensor_over(const c10::Storage& storage, c10::DispatchKey key, const at::Tensor& shape) {
  at::Tensor made =
      at::detail::make_tensor<c10::TensorImpl>(c10::Storage(storage), c10::DispatchKeySet(key), shape.dtype());
  made.unsafeGetTensorImpl()->set_sizes_and_strides(shape.sizes(), shape.strides(), shape.storage_offset());
  if (shape.unsafeGetTensorImpl()->is_wrapped_number()) made.unsafeGetTensorImpl()->set_wrapped_number(true);
  return made;
}

c10::Storage alias_of(const c10::Storage& device) {
  c10::DataPtr bytes(device.mutable_data(), c10::Device(c10::kCPU));
  return c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), device.nbytes(), std::move(bytes),
                                               aliased_allocator(), /*resizable=*/true);
}

c10::Storage copy_of(const c10::Storage& cpu) {
  c10::DataPtr bytes = device_allocator()->allocate(cpu.nbytes());
  if (cpu.nbytes() > 0) device_allocator()->copy_data(bytes.get(), cpu.data(), cpu.nbytes());
  return c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), cpu.nbytes(), std::move(bytes),
                                               device_allocator(), /*resizable=*/true);
}

}  // namespace

at::Tensor CpuAliases::alias(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.is_privateuseone()) return tensor;
  const c10::Storage& device = tensor.storage();
  auto [entry, is_new] = cpu_of_.try_emplace(device.unsafeGetStorageImpl());
  if (is_new) {
    entry->second = alias_of(device);
    device_of_.emplace(entry->second.unsafeGetStorageImpl(), device);
  }
  return tensor_over(entry->second, c10::DispatchKey::CPU, tensor);
}

at::Tensor CpuAliases::to_device(const at::Tensor& result) {
  if (!result.defined()) return result;
  TORCH_CHECK_NOT_IMPLEMENTED(result.layout() == c10::kStrided, "the emulated device has strided tensors only, got ",
                              result.layout());
  const c10::Storage& cpu = result.storage();
  auto [entry, is_new] = device_of_.try_emplace(cpu.unsafeGetStorageImpl());
  if (is_new)
    entry->second = copy_of(cpu);
  else
    return_grown_memory(cpu, entry->second);
  return tensor_over(entry->second, c10::DispatchKey::PrivateUse1, result);
}

void CpuAliases::take_back(const at::Tensor& tensor, const at::Tensor& alias) {
  if (!tensor.defined() || !tensor.is_privateuseone()) return;
  return_grown_memory(alias.storage(), tensor.storage());
  if (tensor.sizes() != alias.sizes() || tensor.strides() != alias.strides() ||
      tensor.storage_offset() != alias.storage_offset())
    tensor.unsafeGetTensorImpl()->set_sizes_and_strides(alias.sizes(), alias.strides(), alias.storage_offset());
  mark_written(tensor);
}

// A kernel that grew an alias has allocated device memory under the CPU's name: it becomes the device storage's.
void CpuAliases::return_grown_memory(const c10::Storage& cpu, const c10::Storage& device) {
  if (cpu.data() == device.data()) return;
  c10::DataPtr owned = cpu.set_data_ptr(c10::DataPtr(cpu.mutable_data(), c10::Device(c10::kCPU)));
  void* const begin = owned.get();
  TORCH_CHECK(begin == nullptr || owned.get_deleter() == device_allocator()->raw_deleter(),
              "a kernel has put memory of its own into a device tensor");
  owned.release_context();
  device.set_data_ptr_noswap({begin, begin, device_allocator()->raw_deleter(), c10::Device(c10::kPrivateUse1, 0)});
  device.set_nbytes(cpu.nbytes());
}

namespace {

// Marks the elements below one index of the outer dimensions, in runs as long as the strides allow.
void mark_rows(const at::Tensor& tensor, char* begin, int64_t dim) {
  const auto bytes = static_cast<int64_t>(tensor.itemsize());
  if (dim == tensor.dim()) return cuda_emulator::host_wrote(begin, bytes);
  if (dim + 1 == tensor.dim() && tensor.stride(dim) == 1)
    return cuda_emulator::host_wrote(begin, bytes * tensor.size(dim));
  for (int64_t i = 0; i < tensor.size(dim); ++i) mark_rows(tensor, begin + i * tensor.stride(dim) * bytes, dim + 1);
}

}  // namespace

void mark_written(const at::Tensor& tensor) {
  if (tensor.numel() == 0) return;
  auto* const begin = static_cast<char*>(tensor.mutable_data_ptr());
  if (tensor.is_non_overlapping_and_dense())
    cuda_emulator::host_wrote(begin, tensor.nbytes());
  else
    mark_rows(tensor, begin, 0);
}

}  // namespace emulated_device
