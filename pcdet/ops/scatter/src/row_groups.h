// Groups of the rows of a table, as kernels read them, and what the tensors that describe them must satisfy.
#pragma once

#include <pcdet/check.h>

#include <optional>

namespace pcdet::PCDET_BACKEND {

// Group g has the rows row(begin(g)) ... row(end(g) - 1). The host has refused what lies outside on the CPU; on the GPU
// it is passed over: such a range is cut, such a row is -1.
struct RowGroups {
  const int64_t* order;    // (places,), or null for 0, 1, 2, ...
  const int64_t* offsets;  // (groups + 1,)
  int64_t groups, places, rows;

  PCDET_HD int64_t begin(int64_t g) const { return within(offsets[g]); }
  PCDET_HD int64_t end(int64_t g) const { return within(offsets[g + 1]); }
  PCDET_HD int64_t row(int64_t at) const {
    const int64_t found = order == nullptr ? at : order[at];
    return found >= 0 && found < rows ? found : -1;
  }

 private:
  PCDET_HD int64_t within(int64_t offset) const { return offset < 0 ? 0 : offset > places ? places : offset; }
};

// Owns what RowGroups points to.
struct GroupTensors {
  std::optional<at::Tensor> order;
  at::Tensor offsets;

  RowGroups of(int64_t rows) const {
    return {order ? order->const_data_ptr<int64_t>() : nullptr, offsets.const_data_ptr<int64_t>(), offsets.size(0) - 1,
            order ? order->size(0) : rows, rows};
  }
};

inline void check_longs(const char* name, const at::Tensor& x) {
  TORCH_CHECK_VALUE(x.scalar_type() == at::kLong, name, " must be int64, got ", x.scalar_type());
}

// The groups of a table (called `name`) with so many rows, checked; contiguous.
inline GroupTensors checked_groups(const char* name, const at::Tensor& table, int64_t rows,
                                   const std::optional<at::Tensor>& order, const at::Tensor& offsets) {
  TORCH_CHECK_VALUE(rows >= 0 && rows < std::numeric_limits<int32_t>::max(),
                    "the number of rows must lie in [0, 2^31), got ", rows);
  TORCH_CHECK_VALUE(offsets.dim() == 1 && offsets.size(0) >= 1, "offsets must have shape (G + 1,), got ",
                    offsets.sizes());
  check_longs("offsets", offsets);
  check_same_device(name, table, "offsets", offsets);
  GroupTensors found{std::nullopt, offsets.contiguous()};
  if (order) {
    TORCH_CHECK_VALUE(order->dim() == 1, "order must have shape (N,), got ", order->sizes());
    check_longs("order", *order);
    check_same_device(name, table, "order", *order);
    found.order = order->contiguous();
    check_rows("order", *found.order, rows);
  }
  check_offsets("offsets", found.offsets, found.of(rows).places);
  return found;
}

}  // namespace pcdet::PCDET_BACKEND
