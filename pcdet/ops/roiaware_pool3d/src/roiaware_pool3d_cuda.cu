// Pooling into regions of interest on the GPU: a warp walks the points for a roi, 32 at a time and in order; a thread
// then pools one channel of a roi, or collects one channel of a point's gradient.
#include <pcdet/warp.h>

#include "roiaware_pool3d_host.h"

namespace pcdet::PCDET_BACKEND {

// One block of one warp for each roi.
template <typename T>
__global__ void assign_voxels_kernel(AssignVoxels<T> assign, int64_t rois) {
  const int lane = threadIdx.x;
  for (int64_t roi = blockIdx.x; roi < rois; roi += gridDim.x) {
    const RoiGrid<T> grid = assign.grid(roi);
    int32_t* voxel = assign.voxel + roi * assign.num_points;
    int32_t* count = assign.count + roi * assign.num_voxels();
    for (int64_t first = 0; first < assign.num_points; first += kLanes) {
      const int64_t k = first + lane;
      const T* p = assign.points + k * 3;
      const int32_t v = k < assign.num_points ? grid.voxel_of(p[0], p[1], p[2]) : -1;
      const unsigned peers = __match_any_sync(kAllLanes, v);
      const int rank = __popc(peers & ((1u << lane) - 1));
      const int32_t before = v >= 0 ? count[v] : 0;
      __syncwarp();  // all have read the count before a first lane writes it
      if (v >= 0 && rank == 0) count[v] = min(before + __popc(peers), assign.most_points);
      if (k < assign.num_points) voxel[k] = v >= 0 && before + rank < assign.most_points ? v : -1;
      __syncwarp();
    }
  }
}

template <typename Kernel>
struct OneChannel {
  Kernel kernel;
  PCDET_HD void operator()(int64_t row, int64_t c) const { kernel(row, c, c + 1); }
};

struct CudaRoiawarePool3d {
  // Always true: the kernels test each voxel before they use it.
  static bool all_below(const at::Tensor&, int64_t) { return true; }

  template <typename T>
  static void assign_voxels(const AssignVoxels<T>& assign, int64_t rois) {
    const auto blocks = static_cast<unsigned>(std::min<int64_t>(rois, 65535));
    assign_voxels_kernel<<<blocks, kLanes, 0, c10::cuda::getCurrentCUDAStream()>>>(assign, rois);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <typename T>
  static void pool_rois(const PoolRoi<T>& pool, int64_t rois) {
    for_each_pair(rois, pool.channels, OneChannel<PoolRoi<T>>{pool});
  }

  template <typename T>
  static void spread_gradients(const CollectGradient<T>& collect) {
    for_each_pair(collect.num_points, collect.channels, OneChannel<CollectGradient<T>>{collect});
  }
};

TORCH_LIBRARY_IMPL(pcdet, CUDA, m) { register_roiaware_pool3d<CudaRoiawarePool3d>(m); }

}  // namespace pcdet::PCDET_BACKEND
