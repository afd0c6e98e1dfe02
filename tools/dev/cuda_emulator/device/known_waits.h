// Which of ATen's operators make the host wait when they run on CUDA.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

namespace emulated_device {

// Reports the waits of one call, by ATen's CUDA sources. Operators made of others are not listed: their parts are seen.
void report_known_waits(const c10::OperatorHandle& op, c10::ArrayRef<c10::IValue> arguments);

}  // namespace emulated_device
