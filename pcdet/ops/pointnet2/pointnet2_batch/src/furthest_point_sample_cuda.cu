// Furthest point sampling on the GPU, exact: one block a frame. As on the CPU, points stand in buckets of neighbours
// with boxes around them; for each pick, threads test the boxes, and warps go through the few buckets that it reaches.
#include <ATen/ops/amax.h>
#include <ATen/ops/amin.h>
#include <ATen/ops/sort.h>
#include <pcdet/warp.h>

#include "furthest_point_sample_host.h"

namespace pcdet::PCDET_BACKEND {

constexpr int kBucketPoints = 64;
constexpr int32_t kNoRow = std::numeric_limits<int32_t>::max();

// Place along Morton's curve: the bits of x, y and z in turn, ten of each.
template <typename T>
struct PlaceOnCurve {
  const T *points, *low, *high;  // (B, N, 3), (B, 3), (B, 3)
  int32_t* place;                // (B, N)
  int64_t n;
  __device__ void operator()(int64_t row) const {
    const int64_t frame = row / n * 3;
    T extent = 0;
    for (int a = 0; a < 3; ++a) extent = max(extent, high[frame + a] - low[frame + a]);
    uint32_t code = 0;
    for (int a = 0; a < 3; ++a) {
      const T step = (points[row * 3 + a] - low[frame + a]) / extent * T(1023);
      uint32_t v = step > T(0) ? (step < T(1023) ? static_cast<uint32_t>(step) : 1023u) : 0u;
      v = (v | v << 16) & 0x030000FFu;
      v = (v | v << 8) & 0x0300F00Fu;
      v = (v | v << 4) & 0x030C30C3u;
      v = (v | v << 2) & 0x09249249u;
      code |= v << a;
    }
    place[row] = static_cast<int32_t>(code);
  }
};

template <typename T>
struct DeviceBuckets {
  T *x, *y, *z;      // (B, count, kBucketPoints), infinite where there is no point
  T* nearest;        // (B, count, kBucketPoints) squared distance to the nearest pick; -1 where there is no point
  int32_t* index;    // (B, count, kBucketPoints) row of the point, or kNoRow
  T* box;            // (B, 6, count) low x, y, z, high x, y, z
  T* furthest;       // (B, count) the greatest of nearest
  int32_t* first;    // (B, count) the first point that has it
  int32_t* reached;  // (B, count) buckets that the last pick reaches
  int64_t count;
};

template <typename T>
struct FillBucket {
  const T* points;       // (B, N, 3)
  const int64_t* order;  // (B, N)
  DeviceBuckets<T> to;
  int64_t n;
  __device__ void operator()(int64_t frame, int64_t b) const {
    T low[3], high[3];
    for (int a = 0; a < 3; ++a) low[a] = std::numeric_limits<T>::infinity(), high[a] = -low[a];
    for (int64_t k = 0; k < kBucketPoints; ++k) {
      const int64_t at = (frame * to.count + b) * kBucketPoints + k, rank = b * kBucketPoints + k;
      const bool there = rank < n;
      const int64_t row = there ? order[frame * n + rank] : 0;
      const T* p = points + (frame * n + row) * 3;
      to.x[at] = there ? p[0] : std::numeric_limits<T>::infinity();
      to.y[at] = there ? p[1] : std::numeric_limits<T>::infinity();
      to.z[at] = there ? p[2] : std::numeric_limits<T>::infinity();
      to.nearest[at] = there ? std::numeric_limits<T>::max() : T(-1);
      to.index[at] = there ? static_cast<int32_t>(row) : kNoRow;
      for (int a = 0; a < 3 && there; ++a) {
        low[a] = min(low[a], p[a]);
        high[a] = max(high[a], p[a]);
      }
    }
    for (int a = 0; a < 3; ++a) {
      to.box[(frame * 6 + a) * to.count + b] = low[a];
      to.box[(frame * 6 + a + 3) * to.count + b] = high[a];
    }
    to.furthest[frame * to.count + b] = std::numeric_limits<T>::max();
    to.first[frame * to.count + b] = to.index[(frame * to.count + b) * kBucketPoints];
  }
};

template <typename T>
struct Furthest {
  T distance;
  int32_t index;

  __device__ void offer(T d, int32_t i) {
    if (d > distance || (d == distance && i < index)) distance = d, index = i;
  }
  __device__ void reduce_over_warp() {
    for (int step = kLanes / 2; step > 0; step /= 2) {
      const T d = __shfl_xor_sync(kAllLanes, distance, step);
      const int32_t i = __shfl_xor_sync(kAllLanes, index, step);
      offer(d, i);
    }
  }
};

template <typename T>
__device__ T bound_of(const T* box, int64_t count, int64_t b, const T* pick) {
  T outside[3];
  for (int a = 0; a < 3; ++a)
    outside[a] = max(max(box[a * count + b] - pick[a], pick[a] - box[(a + 3) * count + b]), T(0));
  return squared_norm(outside[0], outside[1], outside[2]);
}

// One warp: the bucket's points come nearer to the pick.
template <typename T>
__device__ void refresh(const DeviceBuckets<T>& s, int64_t bucket, const T* pick) {
  Furthest<T> found{T(-1), kNoRow};
  for (int64_t k = bucket * kBucketPoints + threadIdx.x % kLanes; k < (bucket + 1) * kBucketPoints; k += kLanes) {
    const T d = squared_norm(s.x[k] - pick[0], s.y[k] - pick[1], s.z[k] - pick[2]);
    const T nearest = min(s.nearest[k], d);
    s.nearest[k] = nearest;
    found.offer(nearest, s.index[k]);
  }
  found.reduce_over_warp();
  if (threadIdx.x % kLanes == 0) {
    s.furthest[bucket] = found.distance;
    s.first[bucket] = found.index;
  }
}

template <typename T>
__global__ void sample_kernel(const T* xyz, const T* low, const T* high, DeviceBuckets<T> s, int64_t n, int64_t npoint,
                              int32_t* picks) {
  const int64_t frame = blockIdx.x, first_bucket = frame * s.count;
  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes, warps = blockDim.x / kLanes;
  xyz += frame * n * 3;
  picks += frame * npoint;
  __shared__ int num_reached;
  __shared__ Furthest<T> of_warp[kLanes];
  __shared__ T pick[3];

  bool finite = true;
  for (int a = 0; a < 3; ++a) finite &= isfinite(low[frame * 3 + a]) && isfinite(high[frame * 3 + a]);
  if (!finite) {
    for (int64_t i = threadIdx.x; i < npoint; i += blockDim.x) picks[i] = -1;
    return;
  }
  if (threadIdx.x == 0) {
    picks[0] = 0;
    num_reached = 0;
    for (int a = 0; a < 3; ++a) pick[a] = xyz[a];
  }
  __syncthreads();
  for (int64_t step = 1; step < npoint; ++step) {
    for (int64_t b = threadIdx.x; b < s.count; b += blockDim.x)
      if (bound_of(s.box + frame * 6 * s.count, s.count, b, pick) < s.furthest[first_bucket + b])
        s.reached[first_bucket + atomicAdd(&num_reached, 1)] = static_cast<int32_t>(b);
    __syncthreads();
    for (int at = warp; at < num_reached; at += warps) refresh(s, first_bucket + s.reached[first_bucket + at], pick);
    __syncthreads();
    Furthest<T> found{T(-1), kNoRow};
    for (int64_t b = first_bucket + threadIdx.x; b < first_bucket + s.count; b += blockDim.x)
      found.offer(s.furthest[b], s.first[b]);
    found.reduce_over_warp();
    if (lane == 0) of_warp[warp] = found;
    __syncthreads();
    if (warp == 0) {
      found = lane < warps ? of_warp[lane] : Furthest<T>{T(-1), kNoRow};
      found.reduce_over_warp();
      if (lane < 3) pick[lane] = xyz[int64_t(found.index) * 3 + lane];
      if (lane == 0) {
        picks[step] = found.index;
        num_reached = 0;
      }
    }
    __syncthreads();
  }
}

struct CudaFurthestPointSample {
  template <typename T>
  static void sample_frames(const at::Tensor& xyz, int64_t npoint, int32_t* picks) {
    const int64_t frames = xyz.size(0), n = xyz.size(1), count = (n + kBucketPoints - 1) / kBucketPoints;
    const auto ints = xyz.options().dtype(at::kInt);
    const at::Tensor low = xyz.amin(1).contiguous(), high = xyz.amax(1).contiguous();
    at::Tensor place = at::empty({frames, n}, ints);
    for_each(frames * n, PlaceOnCurve<T>{xyz.const_data_ptr<T>(), low.const_data_ptr<T>(), high.const_data_ptr<T>(),
                                         place.mutable_data_ptr<int32_t>(), n});
    const at::Tensor order =
        std::get<1>(at::sort(place, /*stable=*/true, /*dim=*/1, /*descending=*/false)).contiguous();

    at::Tensor rows = at::empty({4, frames, count, kBucketPoints}, xyz.options());
    at::Tensor box = at::empty({frames, 6, count}, xyz.options()), furthest = at::empty({frames, count}, xyz.options());
    at::Tensor index = at::empty({frames, count, kBucketPoints}, ints), lists = at::empty({2, frames, count}, ints);
    auto* row = rows.mutable_data_ptr<T>();
    auto* list = lists.mutable_data_ptr<int32_t>();
    const int64_t size = frames * count * kBucketPoints;
    const DeviceBuckets<T> buckets{row,
                                   row + size,
                                   row + size * 2,
                                   row + size * 3,
                                   index.mutable_data_ptr<int32_t>(),
                                   box.mutable_data_ptr<T>(),
                                   furthest.mutable_data_ptr<T>(),
                                   list,
                                   list + frames * count,
                                   count};
    for_each_pair(frames, count, FillBucket<T>{xyz.const_data_ptr<T>(), order.const_data_ptr<int64_t>(), buckets, n});

    TORCH_CHECK_VALUE(frames <= std::numeric_limits<int32_t>::max(), "xyz must hold fewer than 2^31 frames, got ",
                      frames);
    const int threads = count <= 64 ? 128 : count <= 512 ? 512 : 1024;
    sample_kernel<<<static_cast<unsigned>(frames), threads, 0, c10::cuda::getCurrentCUDAStream()>>>(
        xyz.const_data_ptr<T>(), low.const_data_ptr<T>(), high.const_data_ptr<T>(), buckets, n, npoint, picks);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
};

TORCH_LIBRARY_IMPL(pcdet, CUDA, m) { register_furthest_point_sample<CudaFurthestPointSample>(m); }

}  // namespace pcdet::PCDET_BACKEND
