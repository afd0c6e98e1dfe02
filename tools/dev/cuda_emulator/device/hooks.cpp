// What PyTorch asks of a device outside any operator: is it there, its generators, pinned memory, growth of storages.
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <cuda_emulator/memory.h>

#include <algorithm>
#include <cstring>

#include "generator.h"
#include "memory_kinds.h"

namespace emulated_device {
namespace {

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }

  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(c10::DeviceIndex index) const override { check(index); }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex index) const override {
    check(index);
    return 0;
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }

  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override { return default_generator(); }
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return new_generator(); }

  at::Device getDeviceFromPtr(void* address) const override {
    TORCH_CHECK(cuda_emulator::is_device_memory(address), "the address ", address, " is no memory of the device");
    return {c10::kPrivateUse1, 0};
  }
  bool isPinnedPtr(const void* address) const override { return is_pinned(address); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return pinned_allocator(); }

  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    c10::DataPtr grown = device_allocator()->allocate(bytes);
    if (const size_t kept = std::min(bytes, storage.nbytes()))
      device_allocator()->copy_data(grown.get(), storage.data(), kept);
    storage.set_data_ptr_noswap(std::move(grown));
    storage.set_nbytes(bytes);
  }

 private:
  static void check(c10::DeviceIndex index) {
    TORCH_CHECK(index <= 0, "there is one emulated device, number 0, got ", static_cast<int>(index));
  }
};

const bool registered_hooks = [] {
  at::RegisterPrivateUse1HooksInterface(new Hooks);
  return true;
}();

}  // namespace
}  // namespace emulated_device
