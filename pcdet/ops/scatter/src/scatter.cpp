// Reductions over groups of rows on the CPU: a thread takes whole groups and goes through their rows in order, all
// channels at once, so that results do not depend on the number of threads.
#include <pcdet/simd.h>

#include "scatter_host.h"

namespace pcdet::PCDET_BACKEND {

template <typename T>
PCDET_INLINE void sum_rows_of(const RowGroups& groups, int64_t begin, int64_t end, const T* src, int64_t channels,
                              T* out) {
  for (int64_t g = begin; g < end; ++g) {
    T* __restrict to = out + g * channels;
    for (int64_t c = 0; c < channels; ++c) to[c] = 0;
    for (int64_t at = groups.begin(g), last = groups.end(g); at < last; ++at) {
      const T* __restrict from = src + groups.row(at) * channels;
      for (int64_t c = 0; c < channels; ++c) to[c] += from[c];
    }
  }
}
PCDET_WIDE void sum_groups(const RowGroups& groups, int64_t begin, int64_t end, const float* src, int64_t channels,
                           float* out) {
  sum_rows_of(groups, begin, end, src, channels, out);
}
PCDET_WIDE void sum_groups(const RowGroups& groups, int64_t begin, int64_t end, const double* src, int64_t channels,
                           double* out) {
  sum_rows_of(groups, begin, end, src, channels, out);
}

// A NaN counts as the largest; the first row of equals stays.
template <typename T>
PCDET_INLINE void largest_rows_of(const RowGroups& groups, int64_t begin, int64_t end, const T* src, int64_t channels,
                                  T* out, int32_t* argmax) {
  for (int64_t g = begin; g < end; ++g) {
    T* __restrict best = out + g * channels;
    int32_t* __restrict best_row = argmax + g * channels;
    int64_t at = groups.begin(g);
    const int64_t last = groups.end(g);
    const int64_t first = at < last ? groups.row(at++) : -1;
    for (int64_t c = 0; c < channels; ++c) {
      best[c] = first < 0 ? T(0) : src[first * channels + c];
      best_row[c] = static_cast<int32_t>(first);
    }
    for (; at < last; ++at) {
      const int64_t row = groups.row(at);
      const T* __restrict x = src + row * channels;
      for (int64_t c = 0; c < channels; ++c) {
        const bool larger = (x[c] > best[c]) | ((x[c] != x[c]) & (best[c] == best[c]));
        best[c] = larger ? x[c] : best[c];
        best_row[c] = larger ? static_cast<int32_t>(row) : best_row[c];
      }
    }
  }
}
PCDET_WIDE void largest_of_groups(const RowGroups& groups, int64_t begin, int64_t end, const float* src,
                                  int64_t channels, float* out, int32_t* argmax) {
  largest_rows_of(groups, begin, end, src, channels, out, argmax);
}
PCDET_WIDE void largest_of_groups(const RowGroups& groups, int64_t begin, int64_t end, const double* src,
                                  int64_t channels, double* out, int32_t* argmax) {
  largest_rows_of(groups, begin, end, src, channels, out, argmax);
}

struct CpuScatter {
  // Calls f(first group, last group + 1) for all groups, in parallel; the work of a group is that of its rows.
  template <typename F>
  static void for_groups(int64_t groups, int64_t elements, F f) {
    const int64_t elements_of_group = elements / std::max<int64_t>(groups, 1) + 1;
    at::parallel_for(0, groups, kPairsPerThread / elements_of_group + 1, f);
  }

  template <typename T>
  static void sum(const RowGroups& groups, const T* src, int64_t channels, T* out) {
    for_groups(groups.groups, groups.places * channels,
               [&](int64_t begin, int64_t end) { sum_groups(groups, begin, end, src, channels, out); });
  }

  template <typename T>
  static void largest(const RowGroups& groups, const T* src, int64_t channels, T* out, int32_t* argmax) {
    for_groups(groups.groups, groups.places * channels,
               [&](int64_t begin, int64_t end) { largest_of_groups(groups, begin, end, src, channels, out, argmax); });
  }

  template <typename T>
  static void expand(const RowGroups& groups, const T* values, int64_t channels, T* out) {
    for_groups(groups.groups, groups.places * channels, [&](int64_t begin, int64_t end) {
      for (int64_t g = begin; g < end; ++g)
        for (int64_t at = groups.begin(g), last = groups.end(g); at < last; ++at)
          std::copy_n(values + g * channels, channels, out + groups.row(at) * channels);
    });
  }

  template <typename T>
  static void spread(const T* grad, const int32_t* argmax, int64_t groups, int64_t channels, int64_t rows, T* out) {
    for_groups(groups, groups * channels, [&](int64_t begin, int64_t end) {
      for (int64_t g = begin; g < end; ++g)
        for (int64_t c = 0; c < channels; ++c) {
          const int64_t row = argmax[g * channels + c];
          if (row >= 0 && row < rows) out[row * channels + c] = grad[g * channels + c];
        }
    });
  }

  static bool writes_all(const RowGroups& groups) {
    return groups.order == nullptr && groups.groups > 0 && groups.begin(0) == 0 &&
           groups.end(groups.groups - 1) == groups.rows;
  }
};

TORCH_LIBRARY_IMPL(pcdet, CPU, m) { register_scatter<CpuScatter>(m); }

}  // namespace pcdet::PCDET_BACKEND
