// The three nearest points on the GPU: one thread a query; a block's threads read the known points together, in tiles.
#include "three_nn_host.h"

namespace pcdet::PCDET_BACKEND {

constexpr int kTile = 256;  // known points in shared memory, and threads in a block

template <typename T>
__global__ void find_three_kernel(const T* unknown, const T* known, int64_t n, int64_t m, int64_t frames, T* dist2,
                                  int32_t* idx) {
  __shared__ T tile[kTile * 3];
  const int64_t query = blockIdx.x * int64_t(kTile) + threadIdx.x;
  for (int64_t frame = blockIdx.y; frame < frames; frame += gridDim.y) {
    const int64_t row = frame * n + min(query, n - 1);
    const T qx = unknown[row * 3], qy = unknown[row * 3 + 1], qz = unknown[row * 3 + 2];
    const bool finite = isfinite(qx) && isfinite(qy) && isfinite(qz);
    T best[3];
    int32_t at[3];
    for (int k = 0; k < 3; ++k) {
      best[k] = finite ? std::numeric_limits<T>::infinity() : std::numeric_limits<T>::quiet_NaN();
      at[k] = finite ? 0 : -1;
    }
    for (int64_t first = 0; first < m; first += kTile) {
      const int size = static_cast<int>(min(int64_t(kTile), m - first));
      __syncthreads();
      for (int k = threadIdx.x; k < size * 3; k += kTile) tile[k] = known[(frame * m + first) * 3 + k];
      __syncthreads();
      for (int k = 0; k < size; ++k) {
        const T d = squared_norm(qx - tile[k * 3], qy - tile[k * 3 + 1], qz - tile[k * 3 + 2]);
        if (!(d < best[2])) continue;
        const auto i = static_cast<int32_t>(first + k);
        const bool second = d < best[1], nearest = d < best[0];
        best[2] = second ? best[1] : d;
        at[2] = second ? at[1] : i;
        best[1] = nearest ? best[0] : second ? d : best[1];
        at[1] = nearest ? at[0] : second ? i : at[1];
        best[0] = nearest ? d : best[0];
        at[0] = nearest ? i : at[0];
      }
    }
    if (query >= n) continue;
    for (int k = 0; k < 3; ++k) {
      dist2[row * 3 + k] = best[k];
      idx[row * 3 + k] = at[k];
    }
  }
}

struct CudaThreeNn {
  template <typename T>
  static void find_three(const at::Tensor& unknown, const at::Tensor& known, T* dist2, int32_t* idx) {
    const int64_t frames = unknown.size(0), n = unknown.size(1);
    const dim3 grid(static_cast<unsigned>((n + kTile - 1) / kTile),
                    static_cast<unsigned>(std::min<int64_t>(frames, 65535)));
    find_three_kernel<<<grid, kTile, 0, c10::cuda::getCurrentCUDAStream()>>>(
        unknown.const_data_ptr<T>(), known.const_data_ptr<T>(), n, known.size(1), frames, dist2, idx);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
};

TORCH_LIBRARY_IMPL(pcdet, CUDA, m) { register_three_nn<CudaThreeNn>(m); }

}  // namespace pcdet::PCDET_BACKEND
