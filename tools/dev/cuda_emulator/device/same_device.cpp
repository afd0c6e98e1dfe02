// The check of devices that CUDA's operators make, each in its own code, made in one place.
#include "same_device.h"

#include <ATen/core/Tensor.h>

#include <array>
#include <string_view>

#include "waits.h"

namespace emulated_device {
namespace {

// Operators that are no arithmetic by elements and take a CPU tensor without dimensions for a number all the same.
constexpr std::array<std::string_view, 9> kTakeNumbers = {
    "aten::fill_",      "aten::masked_fill",      "aten::masked_fill_",  "aten::where",         "aten::index_put",
    "aten::index_put_", "aten::_index_put_impl_", "aten::_foreach_mul_", "aten::_foreach_div_",
};

bool takes_numbers(const c10::OperatorHandle& op) {
  const std::string_view name = op.schema().name();
  return op.hasTag(at::Tag::pointwise) ||
         std::find(kTakeNumbers.begin(), kTakeNumbers.end(), name) != kTakeNumbers.end();
}

[[noreturn]] void refuse(const c10::OperatorHandle& op, const at::Tensor& stranger) {
  TORCH_CHECK(false, "Expected all tensors to be on the same device, but found at least two devices, ",
              c10::Device(c10::kPrivateUse1, 0), " and ", stranger.device(), "! (", op.schema().operator_name(), ")");
}

void check_tensor(const c10::OperatorHandle& op, const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.is_privateuseone()) return;
  if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) return;  // a number of Python's
  if (!(tensor.is_cpu() && tensor.dim() == 0 && takes_numbers(op))) refuse(op, tensor);
}

void check_index(const c10::OperatorHandle& op, const at::Tensor& index) {
  if (!index.defined() || index.is_privateuseone()) return;
  if (!index.is_cpu()) refuse(op, index);
  report(op.schema().name().c_str(), "an index on the host is copied to the device", true, Transfer::to_device,
         static_cast<int64_t>(index.nbytes()));
}

}  // namespace

void check_same_device(const c10::OperatorHandle& op, c10::ArrayRef<c10::IValue> arguments) {
  for (const c10::IValue& argument : arguments) {
    if (argument.isTensor()) {
      check_tensor(op, argument.toTensor());
    } else if (argument.isTensorList()) {
      for (const at::Tensor& tensor : argument.toTensorVector()) check_tensor(op, tensor);
    } else if (argument.isOptionalTensorList()) {  // only indices come so
      for (const std::optional<at::Tensor>& index : argument.toOptionalTensorVector())
        if (index) check_index(op, *index);
    }
  }
}

}  // namespace emulated_device
