// Any ATen operator on the device, by its CPU kernel.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

namespace emulated_device {

// Runs the CPU kernel of an operator on a stack whose tensors lie on the device: on aliases of the arguments, which it
// reads and writes in place. Results of its own are put into device memory; a result that views an argument views it on
// the device too.
//
// Errors: tensors on different devices (same_device.h), no CPU kernel, a result that is not strided.
void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack);

}  // namespace emulated_device
