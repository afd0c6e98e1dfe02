// One device, numbered 0, with streams and events.
//
// Work is done when its call returns, so streams and events have nothing to order: they carry numbers and times. That
// the host waited for one is reported.
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <atomic>
#include <chrono>

#include "waits.h"

namespace emulated_device {
namespace {

using Clock = std::chrono::steady_clock;

struct Event {
  Clock::time_point recorded;
};

thread_local c10::StreamId current_stream = 0;

struct DeviceGuard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return c10::kPrivateUse1; }
  c10::Device getDevice() const override { return {c10::kPrivateUse1, 0}; }
  c10::Device exchangeDevice(c10::Device device) const override {
    check(device);
    return getDevice();
  }
  void setDevice(c10::Device device) const override { check(device); }
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  c10::DeviceCapability getDeviceCapability(c10::Device) const override { return {}; }

  c10::Stream getStream(c10::Device) const override { return stream(current_stream); }
  c10::Stream getDefaultStream(c10::Device) const override { return stream(0); }
  c10::Stream getNewStream(c10::Device, int) const override { return stream(next_stream()); }
  c10::Stream getStreamFromGlobalPool(c10::Device, bool) const override { return stream(next_stream()); }
  c10::Stream exchangeStream(c10::Stream next) const override {
    const c10::Stream before = stream(current_stream);
    current_stream = next.id();
    return before;
  }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override { report("stream", "synchronize", true); }
  void synchronizeDevice(c10::DeviceIndex) const override { report("device", "synchronize", true); }

  void record(void** event, const c10::Stream&, c10::DeviceIndex, c10::EventFlag) const override {
    if (*event == nullptr) *event = new Event;
    static_cast<Event*>(*event)->recorded = Clock::now();
  }
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override { report("event", "synchronize", true); }
  void destroyEvent(void* event, c10::DeviceIndex) const noexcept override { delete static_cast<Event*>(event); }
  double elapsedTime(void* begin, void* end, c10::DeviceIndex) const override {
    const std::chrono::duration<double, std::milli> between =
        static_cast<Event*>(end)->recorded - static_cast<Event*>(begin)->recorded;
    return between.count();
  }

 private:
  static void check(c10::Device device) {
    TORCH_CHECK(device.index() <= 0, "there is one emulated device, number 0, got ", device);
  }
  static c10::Stream stream(c10::StreamId id) {
    return c10::Stream(c10::Stream::UNSAFE, c10::Device(c10::kPrivateUse1, 0), id);
  }
  static c10::StreamId next_stream() {
    static std::atomic<c10::StreamId> next{1};
    return next++;
  }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, DeviceGuard)

}  // namespace
}  // namespace emulated_device
