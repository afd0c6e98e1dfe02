// What knn's arguments must satisfy, and the rows of each frame.
#pragma once

#include <pcdet/check.h>

#include <optional>

namespace pcdet::PCDET_BACKEND {

inline void check_frame(const char* name, const std::optional<at::Tensor>& frame, const at::Tensor& rows) {
  if (!frame) return;
  TORCH_CHECK_VALUE(frame->dim() == 1 && frame->size(0) == rows.size(0) && frame->scalar_type() == at::kLong &&
                        frame->device() == rows.device(),
                    name, " must have shape (", rows.size(0), ",) and dtype int64 on ", rows.device(), ", got ",
                    frame->sizes(), ", ", frame->scalar_type(), " on ", frame->device());
}

inline void check_knn(const at::Tensor& query, const at::Tensor& base, int64_t k,
                      const std::optional<at::Tensor>& query_frame, const std::optional<at::Tensor>& base_frame) {
  TORCH_CHECK_VALUE(query.dim() == 2 && base.dim() == 2 && query.size(1) == base.size(1) && query.size(1) > 0,
                    "query and base must have shapes (Q, C) and (M, C), got ", query.sizes(), " and ", base.sizes());
  check_float("query", query);
  check_same_kind("query", query, "base", base);
  TORCH_CHECK_VALUE(k >= 1, "k must be at least 1, got ", k);
  TORCH_CHECK_VALUE(base.size(0) < std::numeric_limits<int32_t>::max(), "base must have fewer than 2^31 rows");
  TORCH_CHECK_VALUE(query_frame.has_value() == base_frame.has_value(),
                    "query_frame and base_frame must be given together, got only one of them");
  check_frame("query_frame", query_frame, query);
  check_frame("base_frame", base_frame, base);
}

}  // namespace pcdet::PCDET_BACKEND
