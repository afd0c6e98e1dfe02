// The device's generator, and the operators that seed, read and restore the default one.
#include "generator.h"

#include <torch/library.h>

#include <utility>

namespace emulated_device {
namespace {

struct DeviceGenerator final : at::CPUGeneratorImpl {
  DeviceGenerator() {
    device_ = c10::Device(c10::kPrivateUse1, 0);
    key_set_ = c10::DispatchKeySet(c10::DispatchKey::PrivateUse1);
  }

 private:
  at::CPUGeneratorImpl* clone_impl() const override {
    auto* const copy = new DeviceGenerator;
    copy->set_state(*get_state());
    return copy;
  }
};

at::CPUGeneratorImpl& state_of(const at::Generator& generator) {
  TORCH_CHECK(generator.device().type() == c10::kPrivateUse1, "Expected a '", c10::Device(c10::kPrivateUse1, 0).type(),
              "' device type for generator but found '", generator.device().type(), "'");
  return *static_cast<at::CPUGeneratorImpl*>(generator.unsafeGetGeneratorImpl());
}

}  // namespace

at::Generator new_generator() { return at::make_generator<DeviceGenerator>(); }

const at::Generator& default_generator() {
  static const auto* const generator = new at::Generator(new_generator());
  return *generator;
}

DrawsFromDevice::DrawsFromDevice(const at::Generator& generator) : device_(state_of(generator)) { exchange(); }
DrawsFromDevice::~DrawsFromDevice() { exchange(); }

void DrawsFromDevice::exchange() {
  auto* const host = at::detail::getDefaultCPUGenerator().get<at::CPUGeneratorImpl>();
  const std::scoped_lock lock(host->mutex_, device_.mutex_);
  const at::mt19937 engine = host->engine();
  host->set_engine(device_.engine());
  device_.set_engine(engine);
  const auto single = host->next_float_normal_sample();
  host->set_next_float_normal_sample(device_.next_float_normal_sample());
  device_.set_next_float_normal_sample(single);
  const auto twice = host->next_double_normal_sample();
  host->set_next_double_normal_sample(device_.next_double_normal_sample());
  device_.set_next_double_normal_sample(twice);
}

namespace {

void manual_seed(int64_t seed) {
  const std::lock_guard lock(state_of(default_generator()).mutex_);
  state_of(default_generator()).set_current_seed(static_cast<uint64_t>(seed));
}

int64_t initial_seed() { return static_cast<int64_t>(state_of(default_generator()).current_seed()); }

at::Tensor rng_state() { return at::Tensor(state_of(default_generator()).get_state()); }

void set_rng_state(const at::Tensor& state) {
  const std::lock_guard lock(state_of(default_generator()).mutex_);
  state_of(default_generator()).set_state(*state.unsafeGetTensorImpl());
}

TORCH_LIBRARY_FRAGMENT(cuda_emulator, m) {
  m.def("manual_seed(int seed) -> ()", &manual_seed);
  m.def("initial_seed() -> int", &initial_seed);
  m.def("rng_state() -> Tensor", &rng_state);
  m.def("set_rng_state(Tensor state) -> ()", &set_rng_state);
}

}  // namespace
}  // namespace emulated_device
