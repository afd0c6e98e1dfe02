// The rule of non-maximum suppression, shared by the CPU's and the GPU's loops.
#pragma once

#include <pcdet/check.h>

#include "box_geometry.h"

namespace pcdet::PCDET_BACKEND {

// Whether the boxes' IoU on the ground exceeds `thresh` (>= 0): strictly, as OpenPCDet has it.
// iou > t  <=>  shared > t * (area_a + area_b - shared); shared can only get there if the smaller box is large enough.
template <bool kRotated, typename T>
PCDET_HD bool suppresses(const GroundBox<T>& a, const GroundBox<T>& b, T thresh) {
  const T areas = a.area + b.area, smaller = a.area < b.area ? a.area : b.area;
  const T enough = thresh * (areas - smaller);
  if (smaller <= enough) return false;
  const T shared = kRotated ? overlap_bev(a, b, enough) : overlap_upright(a, b);
  const T both = areas - shared;
  return shared > thresh * (both < T(1e-8) ? T(1e-8) : both);
}

inline void check_nms(const at::Tensor& boxes, const at::Tensor& scores, double thresh) {
  check_boxes("boxes", boxes);
  TORCH_CHECK_VALUE(scores.dim() == 1 && scores.size(0) == boxes.size(0), "scores must have shape (N,) = (",
                    boxes.size(0), ",), one for each box, got ", scores.sizes());
  check_float("scores", scores);
  TORCH_CHECK_VALUE(boxes.device() == scores.device(), "scores must be on the boxes' device (", boxes.device(),
                    "), got ", scores.device());
  TORCH_CHECK_VALUE(thresh >= 0 && thresh <= 1, "thresh must be an IoU in [0, 1], got ", thresh);
}

}  // namespace pcdet::PCDET_BACKEND
