// CUDA's rule on where the arguments of an operator lie.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

namespace emulated_device {

// Refuses arguments of which some lie on the device and some do not, as CUDA does: with its message, and with its
// exceptions for CPU tensors without dimensions, which it takes as numbers, and for CPU tensors as indices, which it
// copies (each is reported as a wait).
void check_same_device(const c10::OperatorHandle& op, c10::ArrayRef<c10::IValue> arguments);

}  // namespace emulated_device
