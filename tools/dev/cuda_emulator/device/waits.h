// What the host does with the device besides launching kernels: copies between them, and waits.
#pragma once

#include <cstdint>

namespace emulated_device {

enum class Transfer : int { none = 0, to_device = 1, to_host = 2 };

// Reports one event. On a real card the host stops at each event that waits; here it is counted.
//   op      the operator, as in aten::nonzero
//   cause   why a real card makes the host wait, or what is copied
void report(const char* op, const char* cause, bool waits, Transfer transfer = Transfer::none, int64_t bytes = 0);

}  // namespace emulated_device

extern "C" {
// Called at each event with op, cause, waits (0 or 1), transfer (0 none, 1 to the device, 2 to the host) and bytes.
using CudaEmulatorListener = void (*)(const char*, const char*, int, int, int64_t);
// Sets the listener; null: none.
__attribute__((visibility("default"))) void cuda_emulator_listen(CudaEmulatorListener listener);
}
