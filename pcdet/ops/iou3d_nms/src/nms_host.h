// The op's host function, a template over its backend: a struct with
//   suppress<kRotated, T>(boxes, scores, order, thresh, keep, count)   writes the kept rows of boxes (N, 7), N > 0, to
//       keep (N,), the best first, and their number to *count, or kNotFinite there; the rest of keep stays as it is.
//       scores (N,) descend, and row order[i] of boxes has score i.
#pragma once

#include <ATen/ops/full.h>
#include <ATen/ops/sort.h>

#include <tuple>

#include "suppression.h"

namespace pcdet::PCDET_BACKEND {

constexpr int64_t kNotFinite = -1;

// (N,) int64 rows of boxes, the best first and -1 behind them; () int64 how many, or kNotFinite.
template <typename Backend>
std::tuple<at::Tensor, at::Tensor> nms_counted(const at::Tensor& boxes, const at::Tensor& scores, double thresh,
                                               bool rotated) {
  check_nms(boxes, scores, thresh);
  const DeviceGuard guard(boxes.device());
  const at::Tensor b = boxes.contiguous(), s = scores.contiguous();
  check_finite_boxes("boxes", b);
  check_finite("scores", s);
  const auto ranked = at::sort(s, /*stable=*/true, /*dim=*/0, /*descending=*/true);
  const at::Tensor sorted = std::get<0>(ranked).contiguous(), order = std::get<1>(ranked).contiguous();
  at::Tensor keep = at::full(order.sizes(), -1, order.options()), count = at::zeros({}, order.options());
  if (order.numel() == 0) return {keep, count};
  AT_DISPATCH_FLOATING_TYPES(b.scalar_type(), "nms_counted", [&] {
    const auto run = rotated ? Backend::template suppress<true, scalar_t> : Backend::template suppress<false, scalar_t>;
    run(b, sorted, order, static_cast<scalar_t>(thresh), keep.mutable_data_ptr<int64_t>(),
        count.mutable_data_ptr<int64_t>());
  });
  return {keep, count};
}

// (K,) int64 rows of boxes, the best first.
template <typename Backend>
at::Tensor nms(const at::Tensor& boxes, const at::Tensor& scores, double thresh, bool rotated) {
  const auto [keep, kept] = nms_counted<Backend>(boxes, scores, thresh, rotated);
  const auto count = kept.template item<int64_t>();  // the only wait for the device
  TORCH_CHECK_VALUE(count != kNotFinite, "boxes and scores must be finite, but hold NaN or infinity");
  return keep.narrow(0, 0, count);
}

template <typename Backend>
void register_nms(torch::Library& m) {
  m.impl("nms", &nms<Backend>);
  m.impl("nms_counted", &nms_counted<Backend>);
}

}  // namespace pcdet::PCDET_BACKEND
