// Dynamic voxelisation on the GPU with the CPU's order: a stable sort by cell brings a voxel's points together.
#include <ATen/ops/cumsum.h>
#include <ATen/ops/full.h>
#include <ATen/ops/lt.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sum.h>

#include "frame_grid.h"

namespace pcdet::PCDET_BACKEND {

template <typename T, typename Key>
struct KeyOfPoint {
  FrameGrid<T> grid;
  const T* points;  // (N, C)
  int64_t columns;
  Key* keys;  // (N,): the cell; behind all cells for points outside
  __device__ void operator()(int64_t i) const {
    const int64_t cell = grid.cell_of(points + i * columns);
    keys[i] = static_cast<Key>(cell < 0 ? grid.num_cells() : cell);
  }
};

template <typename Key>
struct MarkFirstOfCell {
  const Key* keys;  // (N,) ascending
  int64_t num_cells;
  int32_t* is_first;  // (N,)
  __device__ void operator()(int64_t at) const {
    is_first[at] = keys[at] < num_cells && (at == 0 || keys[at - 1] != keys[at]);
  }
};

template <typename T, typename Key>
struct TellVoxel {
  FrameGrid<T> grid;
  const Key* keys;              // (N,) ascending
  const int64_t *point, *rank;  // (N,): the point that stands there; first points up to and including this one
  const int32_t* is_first;      // (N,)
  int64_t inside;
  int32_t* coords;             // (V, 4)
  int64_t *inverse, *offsets;  // (N,), (V + 1,)
  __device__ void operator()(int64_t at) const {
    const int64_t v = rank[at] - 1;
    inverse[point[at]] = at < inside ? v : -1;
    if (at >= inside) return;
    if (at == inside - 1) offsets[v + 1] = inside;
    if (!is_first[at]) return;
    offsets[v] = at;
    grid.coords_of(static_cast<int64_t>(keys[at]), coords + v * 4);
  }
};

using DynamicVoxels = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

// Of N > 0 points. The host waits once, for the numbers of voxels and of points inside.
template <typename Key, typename T>
DynamicVoxels sort_into_voxels(const FrameGrid<T>& grid, const at::Tensor& points, at::ScalarType key_type) {
  const int64_t n = points.size(0);
  const auto ints = points.options().dtype(at::kInt), longs = points.options().dtype(at::kLong);
  at::Tensor unsorted = at::empty({n}, points.options().dtype(key_type)), is_first = at::empty({n}, ints);
  for_each(n, KeyOfPoint<T, Key>{grid, points.const_data_ptr<T>(), points.size(1), unsorted.mutable_data_ptr<Key>()});
  const auto [keys, point] = at::sort(unsorted, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  for_each(n, MarkFirstOfCell<Key>{keys.template const_data_ptr<Key>(), grid.num_cells(),
                                   is_first.mutable_data_ptr<int32_t>()});
  const at::Tensor rank = at::cumsum(is_first, 0, at::kLong);
  const at::Tensor sizes = at::stack({rank[n - 1], keys.lt(grid.num_cells()).sum(at::kLong)}).cpu();
  const int64_t num_voxels = sizes.const_data_ptr<int64_t>()[0], inside = sizes.const_data_ptr<int64_t>()[1];
  at::Tensor coords = at::empty({num_voxels, 4}, ints), inverse = at::empty({n}, longs);
  at::Tensor offsets = at::zeros({num_voxels + 1}, longs);
  for_each(n, TellVoxel<T, Key>{grid, keys.template const_data_ptr<Key>(), point.template const_data_ptr<int64_t>(),
                                rank.const_data_ptr<int64_t>(), is_first.const_data_ptr<int32_t>(), inside,
                                coords.mutable_data_ptr<int32_t>(), inverse.mutable_data_ptr<int64_t>(),
                                offsets.mutable_data_ptr<int64_t>()});
  return {coords, inverse, point.narrow(0, 0, inside), offsets};
}

DynamicVoxels dynamic_voxelize(const at::Tensor& points, at::ArrayRef<double> voxel_size,
                               at::ArrayRef<double> point_cloud_range, int64_t batch_size, bool any_height) {
  check_dynamic_voxelize(points, voxel_size, point_cloud_range, batch_size);
  const DeviceGuard guard(points.device());
  const at::Tensor p = points.contiguous();
  const auto ints = p.options().dtype(at::kInt), longs = p.options().dtype(at::kLong);
  DynamicVoxels found{at::empty({0, 4}, ints), at::empty({0}, longs), at::empty({0}, longs), at::zeros({1}, longs)};
  AT_DISPATCH_FLOATING_TYPES(p.scalar_type(), "dynamic_voxelize", [&] {
    const auto grid = frame_grid<scalar_t>(voxel_size, point_cloud_range, batch_size, any_height);
    if (p.size(0) == 0) return;
    found = grid.num_cells() < std::numeric_limits<int32_t>::max() ? sort_into_voxels<int32_t>(grid, p, at::kInt)
                                                                   : sort_into_voxels<int64_t>(grid, p, at::kLong);
  });
  return found;
}

TORCH_LIBRARY_IMPL(pcdet, CUDA, m) { m.impl("dynamic_voxelize", &dynamic_voxelize); }

}  // namespace pcdet::PCDET_BACKEND
