// The parts of SyncBatchNorm, which ATen has for CUDA alone: by ATen's other operators, in the formulas of its CUDA
// sources. Channels are dimension 1; sums run over all others, in float32 for the half types.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <tuple>
#include <vector>

namespace emulated_device {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

at::ScalarType sum_type(const Tensor& input) {
  return c10::isReducedFloatingType(input.scalar_type()) ? at::kFloat : input.scalar_type();
}

std::vector<int64_t> all_but_channels(const Tensor& input) {
  std::vector<int64_t> dims{0};
  for (int64_t dim = 2; dim < input.dim(); ++dim) dims.push_back(dim);
  return dims;
}

// (C,) -> (1, C, 1, ...), as wide as the input.
Tensor along_channels(const Tensor& values, const Tensor& input) {
  std::vector<int64_t> shape(static_cast<size_t>(input.dim()), 1);
  shape[1] = values.numel();
  return values.view(shape);
}

std::tuple<Tensor, Tensor> stats(const Tensor& input, double eps) {
  const auto dims = all_but_channels(input);
  const Tensor wide = input.to(sum_type(input));
  const Tensor mean = wide.mean(dims);
  return {mean, (wide - along_channels(mean, input)).square().mean(dims).add(eps).rsqrt()};
}

Tensor elemt(const Tensor& input, const OptionalTensor& weight, const OptionalTensor& bias, const Tensor& mean,
             const Tensor& invstd, double) {
  Tensor out = (input.to(sum_type(input)) - along_channels(mean, input)) * along_channels(invstd, input);
  if (weight && weight->defined()) out = out * along_channels(*weight, input);
  if (bias && bias->defined()) out = out + along_channels(*bias, input);
  return out.to(input.scalar_type());
}

// Statistics of every process (P, C) and its counts (P,) -> those of all together, and the running ones moved on.
std::tuple<Tensor, Tensor> gather_stats(const Tensor& input, const Tensor& mean, const Tensor& invstd,
                                        const OptionalTensor& running_mean, const OptionalTensor& running_var,
                                        double momentum, double eps, const Tensor& counts) {
  const Tensor share = counts.to(mean.scalar_type()).unsqueeze(1), total = share.sum();
  const Tensor all_mean = (mean * share).sum(0) / total;
  const Tensor squares = (invstd.pow(-2) - eps + (mean - all_mean).square()) * share;
  const Tensor var = squares.sum(0) / total;
  if (running_mean && running_mean->defined()) running_mean->mul_(1 - momentum).add_(all_mean, momentum);
  if (running_var && running_var->defined())
    running_var->mul_(1 - momentum).add_(var * (total / (total - 1)), momentum);
  return {all_mean, (var + eps).rsqrt()};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> backward_reduce(const Tensor& grad_out, const Tensor& input,
                                                           const Tensor& mean, const Tensor& invstd,
                                                           const OptionalTensor& weight, bool input_g, bool weight_g,
                                                           bool bias_g) {
  const auto dims = all_but_channels(input);
  const Tensor grad = grad_out.to(sum_type(input));
  const Tensor sum_dy = grad.sum(dims);
  const Tensor sum_dy_xmu = (grad * (input.to(sum_type(input)) - along_channels(mean, input))).sum(dims);
  const auto type = weight && weight->defined() ? weight->scalar_type() : sum_dy.scalar_type();
  return {input_g ? sum_dy : Tensor(), input_g ? sum_dy_xmu : Tensor(),
          weight_g ? (sum_dy_xmu * invstd).to(type) : Tensor(), bias_g ? sum_dy.to(type) : Tensor()};
}

Tensor backward_elemt(const Tensor& grad_out, const Tensor& input, const Tensor& mean, const Tensor& invstd,
                      const OptionalTensor& weight, const Tensor& sum_dy, const Tensor& sum_dy_xmu,
                      const Tensor& counts) {
  const Tensor total = counts.sum().to(sum_dy.scalar_type());
  const Tensor centred = input.to(sum_type(input)) - along_channels(mean, input);
  const Tensor slope = along_channels(sum_dy_xmu / total * invstd.square(), input);
  Tensor grad = grad_out.to(sum_type(input)) - along_channels(sum_dy / total, input) - centred * slope;
  grad = grad * along_channels(invstd, input);
  if (weight && weight->defined()) grad = grad * along_channels(weight->to(grad.scalar_type()), input);
  return grad.to(input.scalar_type());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("batch_norm_stats", &stats);
  m.impl("batch_norm_elemt", &elemt);
  m.impl("batch_norm_gather_stats_with_counts", &gather_stats);
  m.impl("batch_norm_backward_reduce", &backward_reduce);
  m.impl("batch_norm_backward_elemt", &backward_elemt);
}

}  // namespace
}  // namespace emulated_device
