// Passes events to the listener in Python, which knows the source line at work.
#include "waits.h"

#include <atomic>

namespace emulated_device {
namespace {
std::atomic<CudaEmulatorListener> current_listener{nullptr};
}

void report(const char* op, const char* cause, bool waits, Transfer transfer, int64_t bytes) {
  if (const CudaEmulatorListener listener = current_listener.load())
    listener(op, cause, waits, static_cast<int>(transfer), bytes);
}

}  // namespace emulated_device

extern "C" void cuda_emulator_listen(CudaEmulatorListener listener) {
  emulated_device::current_listener.store(listener);
}
