// What a table of neighbours must be.
#pragma once

#include <string>

#include "adjacency.h"

namespace pcdet::PCDET_BACKEND {

inline void check_neighbours(const at::Tensor& idx, int64_t num_base) {
  TORCH_CHECK_VALUE(idx.dim() == 2 && idx.scalar_type() == at::kLong,
                    "idx must have shape (G, K) and dtype int64, got ", idx.sizes(), ", ", idx.scalar_type());
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  TORCH_CHECK_VALUE(idx.numel() <= kMost && num_base >= 0 && num_base < kMost,
                    "idx must hold fewer than 2^31 edges between fewer than 2^31 rows, got ", idx.numel(), " and ",
                    num_base);
}

inline void check_narrow(const at::Tensor& idx, int64_t num_base) {
  check_graph(idx, idx);
  TORCH_CHECK_VALUE(num_base >= 0 && num_base < std::numeric_limits<int32_t>::max(),
                    "num_base must lie in [0, 2^31 - 1), got ", num_base);
}

inline std::string wrong_neighbour(int64_t num_base, int64_t given) {
  return "idx must lie in [0, " + std::to_string(num_base) + ") or be -1 for a missing neighbour, got " +
         std::to_string(given);
}

}  // namespace pcdet::PCDET_BACKEND
