// Convolutions: ATen hands those of a device of its own kind to two operators without kernels.
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include "fallback.h"

namespace emulated_device {
namespace {

void convolution(const c10::OperatorHandle&, torch::jit::Stack* stack) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("aten::convolution", "");
  run_on_cpu(op, stack);
}

// The general operator's arguments are the same ones and, after grad_output, input and weight, the bias's sizes.
void convolution_backward(const c10::OperatorHandle& asked, torch::jit::Stack* stack) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("aten::convolution_backward", "");
  const auto first = stack->end() - static_cast<std::ptrdiff_t>(asked.schema().arguments().size());
  const c10::List<int64_t> bias_sizes({first->toTensor().size(1)});
  stack->insert(first + 3, bias_sizes);
  run_on_cpu(op, stack);
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("convolution_overrideable", torch::CppFunction::makeFromBoxedFunction<&convolution>());
  m.impl("convolution_backward_overrideable", torch::CppFunction::makeFromBoxedFunction<&convolution_backward>());
}

}  // namespace
}  // namespace emulated_device
