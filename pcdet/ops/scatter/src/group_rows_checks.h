// What the arguments of group_rows must satisfy.
#pragma once

#include <pcdet/check.h>

namespace pcdet::PCDET_BACKEND {

inline void check_group_rows(const at::Tensor& index, int64_t num_groups) {
  TORCH_CHECK_VALUE(index.dim() == 1, "index must have shape (N,), got ", index.sizes());
  TORCH_CHECK_VALUE(index.scalar_type() == at::kLong, "index must be int64, got ", index.scalar_type());
  TORCH_CHECK_VALUE(index.size(0) < std::numeric_limits<int32_t>::max(), "index must have fewer than 2^31 rows, got ",
                    index.size(0));
  TORCH_CHECK_VALUE(num_groups >= 0 && num_groups < std::numeric_limits<int32_t>::max(),
                    "num_groups must lie in [0, 2^31), got ", num_groups);
}

}  // namespace pcdet::PCDET_BACKEND
