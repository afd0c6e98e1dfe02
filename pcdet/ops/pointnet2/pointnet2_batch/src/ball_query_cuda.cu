// Ball query on the GPU: one warp a centre walks the points in their order, 32 at a time, until it has enough.
#include <pcdet/warp.h>

#include "ball_query_host.h"

namespace pcdet::PCDET_BACKEND {

constexpr int kCentres = 8;  // of a block, a warp for each

template <typename T>
__global__ void find_in_balls_kernel(const T* xyz, const T* centres, int64_t n, int64_t m, int64_t all_centres,
                                     T reach2, int64_t nsample, int32_t* idx) {
  const int lane = threadIdx.x % kLanes;
  const int64_t stride = int64_t(gridDim.x) * kCentres;
  for (int64_t row = blockIdx.x * int64_t(kCentres) + threadIdx.x / kLanes; row < all_centres; row += stride) {
    const T qx = centres[row * 3], qy = centres[row * 3 + 1], qz = centres[row * 3 + 2];
    const T* points = xyz + row / m * n * 3;
    int32_t* out = idx + row * nsample;
    int64_t found = 0;
    int32_t filling = isfinite(qx) && isfinite(qy) && isfinite(qz) ? 0 : -1;
    for (int64_t first = 0; first < n && found < nsample; first += kLanes) {
      const int64_t k = first + lane;
      const bool near =
          k < n && squared_norm(qx - points[k * 3], qy - points[k * 3 + 1], qz - points[k * 3 + 2]) < reach2;
      const unsigned all = __ballot_sync(kAllLanes, near);
      if (all == 0) continue;
      if (found == 0) filling = static_cast<int32_t>(first + __ffs(all) - 1);
      const int64_t at = found + __popc(all & ((1u << lane) - 1));
      if (near && at < nsample) out[at] = static_cast<int32_t>(k);
      found += __popc(all);
    }
    for (int64_t at = found + lane; at < nsample; at += kLanes) out[at] = filling;
  }
}

struct CudaBallQuery {
  template <typename T>
  static void find_in_balls(const at::Tensor& xyz, const at::Tensor& new_xyz, double radius, int64_t nsample,
                            int32_t* idx) {
    const int64_t all = new_xyz.size(0) * new_xyz.size(1);
    const auto blocks = static_cast<unsigned>(std::min<int64_t>((all + kCentres - 1) / kCentres, 1 << 20));
    find_in_balls_kernel<<<blocks, kLanes * kCentres, 0, c10::cuda::getCurrentCUDAStream()>>>(
        xyz.const_data_ptr<T>(), new_xyz.const_data_ptr<T>(), xyz.size(1), new_xyz.size(1), all,
        static_cast<T>(radius) * static_cast<T>(radius), nsample, idx);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
};

TORCH_LIBRARY_IMPL(pcdet, CUDA, m) { register_ball_query<CudaBallQuery>(m); }

}  // namespace pcdet::PCDET_BACKEND
