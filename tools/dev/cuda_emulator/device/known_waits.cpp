// The list of ATen's CUDA operators that wait, and why.
#include "known_waits.h"

#include <ATen/core/Tensor.h>

#include <string>
#include <unordered_map>

#include "waits.h"

namespace emulated_device {
namespace {

const char* const kResultSize = "the size of the result";

const std::unordered_map<std::string, const char*>& always_wait() {
  static const auto* const list = new std::unordered_map<std::string, const char*>{
      {"aten::nonzero", kResultSize},
      {"aten::masked_select", kResultSize},
      {"aten::_unique", kResultSize},
      {"aten::_unique2", kResultSize},
      {"aten::unique_dim", kResultSize},
      {"aten::unique_consecutive", kResultSize},
      {"aten::unique_dim_consecutive", kResultSize},
      {"aten::bincount", "the largest value"},
      {"aten::equal", "the answer"},
      {"aten::_histogramdd_bin_edges", "the range of the values"},
      {"aten::segment_reduce", "the lengths"},
      {"aten::_embedding_bag", "the sizes of the bags"},
  };
  return *list;
}

// Masks among the indices: CUDA turns each into the rows that it names, whose number it waits for.
int masks_among(const c10::IValue& indices) {
  int masks = 0;
  for (const std::optional<at::Tensor>& index : indices.toOptionalTensorVector())
    masks += index && index->defined() && (index->scalar_type() == at::kBool || index->scalar_type() == at::kByte);
  return masks;
}

const c10::IValue& argument_named(const c10::OperatorHandle& op, c10::ArrayRef<c10::IValue> arguments,
                                  const char* name) {
  return arguments[op.schema().argumentIndexWithName(name).value()];
}

}  // namespace

void report_known_waits(const c10::OperatorHandle& op, c10::ArrayRef<c10::IValue> arguments) {
  const std::string& name = op.schema().name();
  if (const auto found = always_wait().find(name); found != always_wait().end()) {
    report(name.c_str(), found->second, true);
  } else if (op.schema().argumentIndexWithName("indices") && arguments.size() > 1 &&
             arguments[1].isOptionalTensorList()) {
    for (int mask = masks_among(arguments[1]); mask > 0; --mask) report(name.c_str(), "the rows of a mask", true);
  } else if (name == "aten::repeat_interleave" && argument_named(op, arguments, "output_size").isNone()) {
    report(name.c_str(), kResultSize, true);
  } else if (name == "aten::histc" && argument_named(op, arguments, "min").toScalar().equal(0) &&
             argument_named(op, arguments, "max").toScalar().equal(0)) {
    report(name.c_str(), "the range of the values", true);
  }
}

}  // namespace emulated_device
