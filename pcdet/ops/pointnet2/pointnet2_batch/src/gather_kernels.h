// What happens to one element when columns of features are picked, blended, or given their gradients.
#pragma once

#include <pcdet/check.h>

namespace pcdet::PCDET_BACKEND {

// The host has refused indices out of range on the CPU; on the GPU they give NaN, and take part in no sum.
template <typename I>
PCDET_HD bool is_row(I index, int64_t n) {
  return index >= 0 && index < n;
}

template <typename T, typename I>
struct PickColumn {
  const T* features;  // (B, C, N)
  const I* idx;       // (B, M)
  T* out;             // (B, C, M)
  int64_t channels, n, m;
  PCDET_HD void operator()(int64_t row, int64_t j) const {
    const I i = idx[row / channels * m + j];
    out[row * m + j] = is_row(i, n) ? features[row * n + i] : std::numeric_limits<T>::quiet_NaN();
  }
};

template <typename T, typename I>
struct BlendThree {
  const T* features;  // (B, C, M)
  const I* idx;       // (B, N, 3)
  const T* weight;    // (B, N, 3)
  T* out;             // (B, C, N)
  int64_t channels, m, n;
  PCDET_HD void operator()(int64_t row, int64_t j) const {
    const int64_t at = (row / channels * n + j) * 3;
    T sum = 0;
    for (int k = 0; k < 3; ++k)
      sum += weight[at + k] *
             (is_row(idx[at + k], m) ? features[row * m + idx[at + k]] : std::numeric_limits<T>::quiet_NaN());
    out[row * n + j] = sum;
  }
};

// Entry e of a frame's idx, in [0, M * per_column), belongs to column e / per_column of grad.
template <typename T, typename I>
struct AddColumn {
  const T* grad;    // (B, C, M)
  const I* idx;     // (B, M * per_column)
  const T* weight;  // (B, M * per_column) or null for ones
  T* out;           // (B, C, N)
  int64_t channels, n, m, per_column;

  PCDET_HD int64_t entries() const { return m * per_column; }
  PCDET_HD T share(int64_t row, int64_t e) const {
    const T g = grad[row * m + e / per_column];
    return weight ? g * weight[row / channels * entries() + e] : g;
  }
};

}  // namespace pcdet::PCDET_BACKEND
