// Pooling of the points in boxes on the GPU: one warp walks the points for a box, 32 at a time, until it has enough.
#include <pcdet/warp.h>

#include "roipoint_pool3d_host.h"

namespace pcdet::PCDET_BACKEND {

constexpr int kBoxes = 8;  // of a block, a warp for each

template <typename T>
__global__ void choose_points_kernel(const T* points, const T* boxes, int64_t n, int64_t num_boxes, int64_t all_boxes,
                                     int64_t room, int32_t* chosen, int32_t* num_found) {
  const int lane = threadIdx.x % kLanes;
  const int64_t warps = int64_t(gridDim.x) * kBoxes;
  for (int64_t row = blockIdx.x * int64_t(kBoxes) + threadIdx.x / kLanes; row < all_boxes; row += warps) {
    const SolidBox<T> box = SolidBox<T>::from(boxes + row * 7, T(kIndexMargin));
    const T* frame = points + row / num_boxes * n * 3;
    int64_t found = 0;
    for (int64_t first = 0; first < n && found < room; first += kLanes) {
      const int64_t k = first + lane;
      const bool inside = k < n && box.contains(frame[k * 3], frame[k * 3 + 1], frame[k * 3 + 2]);
      const unsigned all = __ballot_sync(kAllLanes, inside);
      const int64_t at = found + __popc(all & ((1u << lane) - 1));
      if (inside && at < room) chosen[row * room + at] = static_cast<int32_t>(k);
      found += __popc(all);
    }
    if (lane == 0) num_found[row] = static_cast<int32_t>(min(found, room));
  }
}

struct CudaRoipointPool3d {
  template <typename T>
  static void choose_points(const T* points, const T* boxes, int64_t frames, int64_t n, int64_t num_boxes, int64_t room,
                            int32_t* chosen, int32_t* num_found) {
    const int64_t all = frames * num_boxes;
    const auto blocks = static_cast<unsigned>(std::min<int64_t>((all + kBoxes - 1) / kBoxes, 65535));
    choose_points_kernel<<<blocks, kLanes * kBoxes, 0, c10::cuda::getCurrentCUDAStream()>>>(
        points, boxes, n, num_boxes, all, room, chosen, num_found);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
};

TORCH_LIBRARY_IMPL(pcdet, CUDA, m) { register_roipoint_pool3d<CudaRoipointPool3d>(m); }

}  // namespace pcdet::PCDET_BACKEND
