// Hard voxelisation on the GPU with the CPU's order. A hash table finds each cell's first point; counting first points
// numbers the voxels; a stable sort by voxel gives every point its slot.
#include <ATen/ops/cumsum.h>
#include <ATen/ops/full.h>
#include <ATen/ops/sort.h>

#include <bit>

#include "voxel_grid.h"

namespace pcdet::PCDET_BACKEND {

constexpr int64_t kFree = -1;

template <typename T>
struct InsertCell {
  VoxelGrid<T> grid;
  const T* points;  // (N, C)
  int64_t channels;
  unsigned long long* keys;  // (capacity,), kFree where empty
  int32_t* first_point;      // (capacity,), N where empty
  int64_t mask;              // capacity - 1
  int64_t* slot_of_point;    // (N,), -1 outside the range
  __device__ void operator()(int64_t i) const {
    const int64_t cell = grid.cell_of(points + i * channels);
    if (cell < 0) {
      slot_of_point[i] = -1;
      return;
    }
    constexpr uint64_t kGolden = 0x9E3779B97F4A7C15ull;
    int64_t slot = static_cast<int64_t>(static_cast<uint64_t>(cell) * kGolden >> 32) & mask;
    const auto wanted = static_cast<unsigned long long>(cell);
    for (;; slot = (slot + 1) & mask) {
      const auto seen = atomicCAS(keys + slot, static_cast<unsigned long long>(kFree), wanted);
      if (seen == static_cast<unsigned long long>(kFree) || seen == wanted) break;
    }
    atomicMin(first_point + slot, static_cast<int32_t>(i));
    slot_of_point[i] = slot;
  }
};

struct MarkFirst {
  const int64_t* slot_of_point;
  const int32_t* first_point;
  int32_t* is_first;  // (N,)
  __device__ void operator()(int64_t i) const {
    const int64_t slot = slot_of_point[i];
    is_first[i] = slot >= 0 && first_point[slot] == i;
  }
};

struct VoxelOfPoint {
  const int64_t* slot_of_point;
  const int32_t* first_point;
  const int64_t* rank;  // (N,): first points up to and including this one
  int64_t num_voxels;
  int32_t* voxel;  // (N,); num_voxels: dropped
  __device__ void operator()(int64_t i) const {
    const int64_t slot = slot_of_point[i];
    const int64_t number = slot < 0 ? num_voxels : rank[first_point[slot]] - 1;
    voxel[i] = static_cast<int32_t>(number < num_voxels ? number : num_voxels);
  }
};

struct MarkStart {
  const int32_t* voxel;  // (N,) ascending
  int64_t num_voxels;
  int64_t* start;  // (V,)
  __device__ void operator()(int64_t at) const {
    const int32_t v = voxel[at];
    if (v < num_voxels && (at == 0 || voxel[at - 1] != v)) start[v] = at;
  }
};

template <typename T>
struct CopyPoint {
  VoxelGrid<T> grid;
  const T* points;               // (N, C)
  const int32_t* voxel;          // (N,) ascending
  const int64_t *point, *start;  // (N,): the point that stands there; (V,)
  int64_t n, channels, max_points, num_voxels;
  T* voxels;                     // (V, P, C)
  int32_t *coords, *num_points;  // (V, 3), (V,)
  __device__ void operator()(int64_t at) const {
    const int32_t v = voxel[at];
    if (v >= num_voxels) return;
    const int64_t slot = at - start[v];
    const T* from = points + point[at] * channels;
    if (slot == 0) grid.coords_of(grid.cell_of(from), coords + v * int64_t(3));
    if (at + 1 == n || voxel[at + 1] != v) num_points[v] = static_cast<int32_t>(min(slot + 1, max_points));
    if (slot >= max_points) return;
    for (int64_t c = 0; c < channels; ++c) voxels[(v * max_points + slot) * channels + c] = from[c];
  }
};

template <typename T>
std::tuple<at::Tensor, at::Tensor, at::Tensor> voxelize_points(const VoxelGrid<T>& grid, const at::Tensor& points,
                                                               int64_t max_points, int64_t max_voxels) {
  const int64_t n = points.size(0), channels = points.size(1);
  const auto ints = points.options().dtype(at::kInt), longs = points.options().dtype(at::kLong);
  int64_t num_voxels = 0;
  at::Tensor slot_of_point, first_point, rank;
  if (n > 0) {
    const auto capacity = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(2 * n)));
    at::Tensor keys = at::full({capacity}, kFree, longs), is_first = at::empty({n}, ints);
    first_point = at::full({capacity}, n, ints);
    slot_of_point = at::empty({n}, longs);
    for_each(n, InsertCell<T>{grid, points.const_data_ptr<T>(), channels,
                              reinterpret_cast<unsigned long long*>(keys.mutable_data_ptr<int64_t>()),
                              first_point.mutable_data_ptr<int32_t>(), capacity - 1,
                              slot_of_point.mutable_data_ptr<int64_t>()});
    for_each(n, MarkFirst{slot_of_point.const_data_ptr<int64_t>(), first_point.const_data_ptr<int32_t>(),
                          is_first.mutable_data_ptr<int32_t>()});
    rank = at::cumsum(is_first, 0, at::kLong);
    num_voxels = std::min(rank[n - 1].item<int64_t>(), max_voxels);
  }
  at::Tensor voxels = at::zeros({num_voxels, max_points, channels}, points.options());
  at::Tensor coords = at::empty({num_voxels, 3}, ints), num_points = at::empty({num_voxels}, ints);
  if (num_voxels == 0) return {voxels, coords, num_points};

  at::Tensor voxel_of_point = at::empty({n}, ints), start = at::empty({num_voxels}, longs);
  for_each(n, VoxelOfPoint{slot_of_point.const_data_ptr<int64_t>(), first_point.const_data_ptr<int32_t>(),
                           rank.const_data_ptr<int64_t>(), num_voxels, voxel_of_point.mutable_data_ptr<int32_t>()});
  const auto [voxel, point] = at::sort(voxel_of_point, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  for_each(n, MarkStart{voxel.template const_data_ptr<int32_t>(), num_voxels, start.mutable_data_ptr<int64_t>()});
  for_each(n, CopyPoint<T>{grid, points.const_data_ptr<T>(), voxel.template const_data_ptr<int32_t>(),
                           point.template const_data_ptr<int64_t>(), start.const_data_ptr<int64_t>(), n, channels,
                           max_points, num_voxels, voxels.mutable_data_ptr<T>(), coords.mutable_data_ptr<int32_t>(),
                           num_points.mutable_data_ptr<int32_t>()});
  return {voxels, coords, num_points};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> voxelize(const at::Tensor& points, at::ArrayRef<double> voxel_size,
                                                        at::ArrayRef<double> point_cloud_range, int64_t max_points,
                                                        int64_t max_voxels) {
  check_voxelize(points, voxel_size, point_cloud_range, max_points, max_voxels);
  const DeviceGuard guard(points.device());
  const at::Tensor p = points.contiguous();
  std::tuple<at::Tensor, at::Tensor, at::Tensor> out;
  AT_DISPATCH_FLOATING_TYPES(p.scalar_type(), "voxelize", [&] {
    out = voxelize_points(voxel_grid<scalar_t>(voxel_size, point_cloud_range), p, max_points, max_voxels);
  });
  return out;
}

TORCH_LIBRARY_IMPL(pcdet, CUDA, m) { m.impl("voxelize", &voxelize); }

}  // namespace pcdet::PCDET_BACKEND
