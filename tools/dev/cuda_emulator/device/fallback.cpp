// The boxed fallback.
#include "fallback.h"

#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <optional>
#include <vector>

#include "cpu_alias.h"
#include "generator.h"
#include "known_waits.h"
#include "same_device.h"

namespace emulated_device {
namespace {

using c10::IValue;

bool writes(const c10::Argument& argument) {
  return argument.alias_info() != nullptr && argument.alias_info()->isWrite();
}

IValue aliased(CpuAliases& aliases, const IValue& value) {
  if (value.isTensor()) return aliases.alias(value.toTensor());
  if (value.isDevice()) return c10::Device(c10::kCPU);
  if (value.isGenerator()) return {};  // DrawsFromDevice puts the device's numbers into the CPU's default generator
  if (value.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(aliases.alias(tensor));
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> list;
    for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector())
      list.push_back(tensor ? std::optional(aliases.alias(*tensor)) : std::nullopt);
    return list;
  }
  return value;
}

void take_back_written(CpuAliases& aliases, const IValue& argument, const IValue& alias) {
  if (argument.isTensor()) {
    aliases.take_back(argument.toTensor(), alias.toTensor());
  } else if (argument.isTensorList()) {
    const auto tensors = argument.toTensorVector(), written = alias.toTensorVector();
    for (size_t i = 0; i < tensors.size(); ++i) aliases.take_back(tensors[i], written[i]);
  }
}

IValue on_device(CpuAliases& aliases, const IValue& result) {
  if (result.isTensor()) return aliases.to_device(result.toTensor());
  if (result.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const at::Tensor& tensor : result.toTensorVector()) list.push_back(aliases.to_device(tensor));
    return list;
  }
  return result;
}

// The argument that a result is: an operator in place or with out= returns the tensor it was given.
const IValue* argument_returned(const c10::FunctionSchema& schema, size_t result,
                                const std::vector<IValue>& arguments) {
  const c10::AliasInfo* const marks = schema.returns()[result].alias_info();
  if (marks == nullptr || !marks->isWrite()) return nullptr;
  for (size_t i = 0; i < arguments.size(); ++i)
    if (writes(schema.arguments()[i]) && schema.arguments()[i].alias_info()->beforeSets() == marks->beforeSets())
      return &arguments[i];
  return nullptr;
}

// The generator that an operator draws from, if it draws at all.
std::optional<at::Generator> generator_of(const c10::OperatorHandle& op, const std::vector<IValue>& arguments) {
  for (const IValue& argument : arguments)
    if (argument.isGenerator()) return argument.toGenerator();
  if (op.hasTag(at::Tag::nondeterministic_seeded)) return default_generator();
  return std::nullopt;
}

void check_has_cpu_kernel(const c10::OperatorHandle& op) {
  TORCH_CHECK_NOT_IMPLEMENTED(op.schema().getNamespace() != std::string_view("pcdet"), op.schema().operator_name(),
                              " has no CUDA kernel: only its CPU kernel is registered, which the emulated device does "
                              "not use; register one with TORCH_LIBRARY_IMPL(pcdet, CUDA, m)");
  TORCH_CHECK_NOT_IMPLEMENTED(op.hasComputedKernelForDispatchKey(c10::DispatchKey::CPU), op.schema().operator_name(),
                              " has no CPU kernel for the emulated device to run");
}

}  // namespace

void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const c10::FunctionSchema& schema = op.schema();
  check_has_cpu_kernel(op);
  const size_t first = stack->size() - schema.arguments().size();
  const std::vector<IValue> arguments(stack->begin() + static_cast<std::ptrdiff_t>(first), stack->end());
  check_same_device(op, arguments);
  report_known_waits(op, arguments);

  CpuAliases aliases;
  for (size_t i = 0; i < arguments.size(); ++i) (*stack)[first + i] = aliased(aliases, arguments[i]);
  const std::vector<IValue> on_cpu(stack->begin() + static_cast<std::ptrdiff_t>(first), stack->end());
  {
    std::optional<DrawsFromDevice> draws;
    if (const auto generator = generator_of(op, arguments)) draws.emplace(*generator);
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  }
  for (size_t i = 0; i < arguments.size(); ++i)
    if (writes(schema.arguments()[i])) take_back_written(aliases, arguments[i], on_cpu[i]);
  for (size_t i = 0; i < schema.returns().size(); ++i) {
    IValue& result = (*stack)[first + i];
    const IValue* const given = argument_returned(schema, i, arguments);
    result = given != nullptr ? *given : on_device(aliases, result);
  }
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>()); }

// ATen would first work out the result's size with kernels of the device, and count the wait for a mask twice.
TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("index.Tensor", torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
}

}  // namespace emulated_device
