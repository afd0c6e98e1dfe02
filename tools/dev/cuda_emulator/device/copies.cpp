// Copies within the device and between it and the host, and the reading of one number.
//
// CUDA's rules on waiting: the host waits for each copy between itself and the device, except for one that is asked not
// to (non_blocking) and whose memory on the host is pinned.
#include <ATen/core/Tensor.h>
#include <ATen/ops/_local_scalar_dense.h>
#include <torch/library.h>

#include "cpu_alias.h"
#include "memory_kinds.h"
#include "waits.h"

namespace emulated_device {
namespace {

void report_copy(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  if (from.device() == to.device() || to.numel() == 0) return;
  const bool to_host = to.is_cpu();
  const at::Tensor& host = to_host ? to : from;
  const bool waits = !(non_blocking && is_pinned(host.storage().data()));
  report("aten::copy_", to_host ? "a copy to the host" : "a copy to the device", waits,
         to_host ? Transfer::to_host : Transfer::to_device, static_cast<int64_t>(to.nbytes()));
}

at::Tensor copy_from(const at::Tensor& self, const at::Tensor& dst, bool non_blocking) {
  for (const at::Tensor* tensor : {&self, &dst})
    TORCH_CHECK_NOT_IMPLEMENTED(tensor->is_privateuseone() || tensor->is_cpu(), "a copy from ", self.device(), " to ",
                                dst.device(), ": the emulated device knows itself and the CPU");
  report_copy(self, dst, non_blocking);
  CpuAliases aliases;
  const at::Tensor from = aliases.alias(self), to = aliases.alias(dst);
  to.copy_(from);
  aliases.take_back(dst, to);
  return dst;
}

at::Tensor copy_from_and_resize(const at::Tensor& self, const at::Tensor& dst) {
  dst.resize_(self.sizes());
  return copy_from(self, dst, false);
}

at::Scalar local_scalar_dense(const at::Tensor& self) {
  report("aten::_local_scalar_dense", "a number", true, Transfer::to_host, static_cast<int64_t>(self.itemsize()));
  CpuAliases aliases;
  return at::_local_scalar_dense(aliases.alias(self));
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_local_scalar_dense", &local_scalar_dense);
}

}  // namespace
}  // namespace emulated_device
