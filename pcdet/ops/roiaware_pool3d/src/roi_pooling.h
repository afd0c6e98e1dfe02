// How one region of interest pools its points, and how one point collects its gradient.
#pragma once

#include "roi_grid.h"

namespace pcdet::PCDET_BACKEND {

template <typename T>
struct AssignVoxels {
  const T *rois, *points;  // (N, 7), (P, 3)
  int32_t* voxel;          // (N, P)
  int32_t* count;          // (N, V), zero at first
  int64_t num_points;
  int32_t size_x, size_y, size_z, most_points;

  PCDET_HD int64_t num_voxels() const { return int64_t(size_x) * size_y * size_z; }
  PCDET_HD RoiGrid<T> grid(int64_t roi) const { return RoiGrid<T>::from(rois + roi * 7, size_x, size_y, size_z); }
};

template <typename T>
struct PoolRoi {
  const T* features;     // (P, C)
  const int32_t* voxel;  // (N, P), -1 for none
  const int32_t* count;  // (N, V)
  T* pooled;             // (N, V, C), zero at first
  int32_t* argmax;       // (N, V, C), -1 at first; null for means
  int64_t num_points, num_voxels, channels;

  // Channels [begin, end) of one roi. Points come in order: the first of equal maxima stays.
  PCDET_HD void operator()(int64_t roi, int64_t begin, int64_t end) const {
    for (int64_t p = 0; p < num_points; ++p) {
      const int64_t v = voxel[roi * num_points + p];
      if (v < 0 || v >= num_voxels) continue;
      const int64_t to = (roi * num_voxels + v) * channels;
      for (int64_t c = begin; c < end; ++c) {
        const T f = features[p * channels + c];
        if (argmax == nullptr) {
          pooled[to + c] += f;
        } else if (argmax[to + c] < 0 || f > pooled[to + c]) {
          pooled[to + c] = f;
          argmax[to + c] = static_cast<int32_t>(p);
        }
      }
    }
    if (argmax != nullptr) return;
    for (int64_t v = 0; v < num_voxels; ++v) {
      const int64_t row = roi * num_voxels + v;
      if (count[row] > 1)
        for (int64_t c = begin; c < end; ++c) pooled[row * channels + c] /= T(count[row]);
    }
  }
};

template <typename T>
struct CollectGradient {
  const T* grad;          // (N, V, C)
  const int32_t* voxel;   // (N, P)
  const int32_t* count;   // (N, V)
  const int32_t* argmax;  // (N, V, C), or null for means
  T* out;                 // (P, C), zero at first
  int64_t rois, num_points, num_voxels, channels;

  // Channels [begin, end) of one point.
  PCDET_HD void operator()(int64_t point, int64_t begin, int64_t end) const {
    for (int64_t roi = 0; roi < rois; ++roi) {
      const int64_t v = voxel[roi * num_points + point];
      if (v < 0 || v >= num_voxels) continue;
      const int64_t row = roi * num_voxels + v;
      for (int64_t c = begin; c < end; ++c) {
        if (argmax == nullptr)
          out[point * channels + c] += grad[row * channels + c] / T(count[row]);
        else if (argmax[row * channels + c] == point)
          out[point * channels + c] += grad[row * channels + c];
      }
    }
  }
};

}  // namespace pcdet::PCDET_BACKEND
