// Checks of an op's arguments. Every message names the argument, the rule and what was given; callers see a ValueError.
#pragma once

#include <ATen/core/Tensor.h>

#include "backend.h"

namespace pcdet::PCDET_BACKEND {

inline void check_float(const char* name, const at::Tensor& x) {
  TORCH_CHECK_VALUE(x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble, name,
                    " must be float32 or float64, got ", x.scalar_type(), "; convert it with .float()");
}

// Also half precision, for features under autocast.
inline void check_features(const char* name, const at::Tensor& x) {
  TORCH_CHECK_VALUE(x.is_floating_point(), name, " must be a floating-point tensor, got ", x.scalar_type());
}

// Every entry must be a row of something with n rows; on the GPU only the type is looked at.
inline void check_rows(const char* name, const at::Tensor& contiguous, int64_t n) {
  TORCH_CHECK_VALUE(contiguous.scalar_type() == at::kInt || contiguous.scalar_type() == at::kLong, name,
                    " must be int32 or int64, got ", contiguous.scalar_type());
  TORCH_CHECK_VALUE(all_rows_of(contiguous, n), name, " must lie in [0, ", n, "), but holds an index outside");
}

// Offsets of consecutive ranges among n places must ascend within [0, n]; on the GPU nobody looks at them.
inline void check_offsets(const char* name, const at::Tensor& contiguous, int64_t n) {
  TORCH_CHECK_VALUE(ascend_within(contiguous, n), name, " must ascend within [0, ", n, "], but do not");
}

inline void check_same_device(const char* a_name, const at::Tensor& a, const char* b_name, const at::Tensor& b) {
  TORCH_CHECK_VALUE(a.device() == b.device(), b_name, " must be on the device of ", a_name, " (", a.device(), "), got ",
                    b.device());
}

inline void check_same_kind(const char* a_name, const at::Tensor& a, const char* b_name, const at::Tensor& b) {
  TORCH_CHECK_VALUE(a.device() == b.device() && a.scalar_type() == b.scalar_type(), b_name, " must match ", a_name,
                    " (", a.scalar_type(), " on ", a.device(), "), got ", b.scalar_type(), " on ", b.device());
}

inline void check_finite(const char* name, const at::Tensor& contiguous) {
  TORCH_CHECK_VALUE(all_within(contiguous, std::numeric_limits<float>::max()), name,
                    " must be finite, but holds NaN or infinity");
}

// Beyond the limit a box's volume would leave float32's range.
inline void check_finite_boxes(const char* name, const at::Tensor& contiguous) {
  TORCH_CHECK_VALUE(all_within(contiguous, 1e12), name, " must be finite and within +-1e12, but holds NaN or more");
}

// Beyond the limit a squared distance would leave float32's range.
inline void check_coordinates(const char* name, const at::Tensor& contiguous) {
  TORCH_CHECK_VALUE(all_within(contiguous, 1e12), name, " must be finite and within +-1e12, but holds NaN or more");
}

// Boxes are (N, 7) [x, y, z, dx, dy, dz, heading].
inline void check_boxes(const char* name, const at::Tensor& boxes) {
  TORCH_CHECK_VALUE(boxes.dim() == 2 && boxes.size(1) == 7, name,
                    " must have shape (N, 7) [x, y, z, dx, dy, dz, heading], got ", boxes.sizes());
  check_float(name, boxes);
}

}  // namespace pcdet::PCDET_BACKEND
