"""mmcv's C++ box kernels on the CPU as contenders, compiled from an unpacked source distribution of mmcv.

Set MMCV_SOURCE to that folder (the one with ``mmcv/ops/csrc``). Its IoU function is called in a plain loop over raw
pointers, and suppression is the loop of its nms_rotated.cpp likewise: faster than mmcv's own, which index tensors.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

ADAPTER = """
#include <torch/extension.h>
#include "box_iou_rotated_utils.hpp"
#include "pytorch/cpu/points_in_boxes.cpp"

// boxes (N, 5) [x, y, dx, dy, angle]
at::Tensor iou(at::Tensor a, at::Tensor b) {
  auto out = at::empty({a.size(0), b.size(0)}, a.options());
  for (int64_t i = 0; i < a.size(0); ++i)
    for (int64_t j = 0; j < b.size(0); ++j)
      out.data_ptr<float>()[i * b.size(0) + j] =
          single_box_iou_rotated<float>(a.data_ptr<float>() + i * 5, b.data_ptr<float>() + j * 5, 0);
  return out;
}

at::Tensor nms(at::Tensor boxes, at::Tensor scores, double thresh) {
  auto order_tensor = std::get<1>(scores.sort(0, true));
  const auto* order = order_tensor.data_ptr<int64_t>();
  const auto* p = boxes.data_ptr<float>();
  const int64_t n = boxes.size(0);
  std::vector<bool> gone(n, false);
  std::vector<int64_t> keep;
  for (int64_t i = 0; i < n; ++i) {
    if (gone[order[i]]) continue;
    keep.push_back(order[i]);
    for (int64_t j = i + 1; j < n; ++j)
      if (!gone[order[j]] && single_box_iou_rotated<float>(p + order[i] * 5, p + order[j] * 5, 0) > thresh)
        gone[order[j]] = true;
  }
  return torch::tensor(keep);
}

at::Tensor mask(at::Tensor points, at::Tensor boxes) {  // (P, 3), (N, 7) with z at the bottom
  auto out = at::empty({boxes.size(0), points.size(0)}, points.options().dtype(at::kInt));
  points_in_boxes_cpu_forward(boxes, points, out);
  return out;
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("iou", &iou);
  m.def("nms", &nms);
  m.def("mask", &mask);
}
"""


@cache
def mmcv_kernels():
    """The compiled module with ``iou``, ``nms`` and ``mask``, or a str with the reason why there is none."""
    source = os.environ.get("MMCV_SOURCE")
    if not source:
        return "MMCV_SOURCE does not name mmcv's unpacked sources"
    csrc = Path(source) / "mmcv" / "ops" / "csrc"
    if not csrc.is_dir():
        return f"MMCV_SOURCE has no {csrc}"
    from torch.utils.cpp_extension import load_inline

    folders = [str(csrc), str(csrc / "common")]
    return load_inline("mmcv_kernels", ADAPTER, extra_include_paths=folders, extra_cflags=["-O3"])
