// Pooling into regions of interest on the CPU: one thread takes whole rois, or on the way back whole points.
#include "roiaware_pool3d_host.h"

namespace pcdet::PCDET_BACKEND {

inline int64_t rois_per_thread(int64_t num_points) {
  return std::max<int64_t>(1, kPairsPerThread / std::max<int64_t>(num_points, 1));
}

struct CpuRoiawarePool3d {
  static bool all_below(const at::Tensor& voxel, int64_t num_voxels) {
    const auto* values = voxel.const_data_ptr<int32_t>();
    int32_t most = -1;
    for (int64_t i = 0, n = voxel.numel(); i < n; ++i) most = std::max(most, values[i]);
    return most < num_voxels;
  }

  template <typename T>
  static void assign_voxels(const AssignVoxels<T>& assign, int64_t rois) {
    at::parallel_for(0, rois, rois_per_thread(assign.num_points), [&](int64_t begin, int64_t end) {
      for (int64_t roi = begin; roi < end; ++roi) {
        const RoiGrid<T> grid = assign.grid(roi);
        int32_t* voxel = assign.voxel + roi * assign.num_points;
        int32_t* count = assign.count + roi * assign.num_voxels();
        for (int64_t k = 0; k < assign.num_points; ++k) {
          const T* p = assign.points + k * 3;
          voxel[k] = grid.voxel_of(p[0], p[1], p[2]);
          if (voxel[k] < 0) continue;
          if (count[voxel[k]] < assign.most_points)
            ++count[voxel[k]];
          else
            voxel[k] = -1;
        }
      }
    });
  }

  template <typename T>
  static void pool_rois(const PoolRoi<T>& pool, int64_t rois) {
    at::parallel_for(0, rois, rois_per_thread(pool.num_points), [&](int64_t begin, int64_t end) {
      for (int64_t roi = begin; roi < end; ++roi) pool(roi, 0, pool.channels);
    });
  }

  template <typename T>
  static void spread_gradients(const CollectGradient<T>& collect) {
    const int64_t points_per_thread = std::max<int64_t>(1, kPairsPerThread / std::max<int64_t>(collect.rois, 1));
    at::parallel_for(0, collect.num_points, points_per_thread, [&](int64_t begin, int64_t end) {
      for (int64_t point = begin; point < end; ++point) collect(point, 0, collect.channels);
    });
  }
};

TORCH_LIBRARY_IMPL(pcdet, CPU, m) { register_roiaware_pool3d<CpuRoiawarePool3d>(m); }

}  // namespace pcdet::PCDET_BACKEND
