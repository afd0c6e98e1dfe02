// Dynamic voxelisation on the CPU: the points' cells are found, sorted and told apart.
#include <ATen/ops/full.h>
#include <pcdet/simd.h>

#include "frame_grid.h"
#include "radix_sort.h"

namespace pcdet::PCDET_BACKEND {

// cells[i] = grid.cell_of(point i), -1 outside.
template <typename T>
PCDET_INLINE void find_frame_cells(const FrameGrid<T>& grid, const T* points, int64_t stride, int64_t n,
                                   int64_t* cells) {
  for (int64_t i = 0; i < n; ++i) cells[i] = grid.cell_of(points + i * stride);
}
PCDET_WIDE void frame_cells_of(const FrameGrid<float>& grid, const float* points, int64_t stride, int64_t n,
                               int64_t* cells) {
  find_frame_cells(grid, points, stride, n, cells);
}
PCDET_WIDE void frame_cells_of(const FrameGrid<double>& grid, const double* points, int64_t stride, int64_t n,
                               int64_t* cells) {
  find_frame_cells(grid, points, stride, n, cells);
}

template <typename T>
void check_frames(const T* points, int64_t stride, int64_t n, int64_t frames) {
  for (int64_t i = 0; i < n; ++i) {
    const T frame = points[i * stride];
    TORCH_CHECK_VALUE(frame >= 0 && frame < T(frames) && frame == std::floor(frame),
                      "points must have a frame's number in [0, ", frames, ") in their first column, got ", frame,
                      " in row ", i);
  }
}

using DynamicVoxels = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

// What the op returns, from the points in the range sorted by cell.
template <typename Key, typename T>
DynamicVoxels tell_voxels(const FrameGrid<T>& grid, const std::vector<KeyedRow<Key>>& entries, int64_t n,
                          const at::TensorOptions& options) {
  const auto m = static_cast<int64_t>(entries.size());
  int64_t num_voxels = 0;
  for (int64_t i = 0; i < m; ++i) num_voxels += i == 0 || entries[i].key != entries[i - 1].key;
  const auto longs = options.dtype(at::kLong);
  at::Tensor coords = at::empty({num_voxels, 4}, options.dtype(at::kInt)), inverse = at::full({n}, -1, longs);
  at::Tensor order = at::empty({m}, longs), offsets = at::empty({num_voxels + 1}, longs);
  auto* cell = coords.mutable_data_ptr<int32_t>();
  auto *voxel_of = inverse.mutable_data_ptr<int64_t>(), *row = order.mutable_data_ptr<int64_t>();
  auto* start = offsets.mutable_data_ptr<int64_t>();
  int64_t v = -1;
  for (int64_t i = 0; i < m; ++i) {
    if (i == 0 || entries[i].key != entries[i - 1].key) {
      start[++v] = i;
      grid.coords_of(static_cast<int64_t>(entries[i].key), cell + v * 4);
    }
    row[i] = entries[i].row;
    voxel_of[entries[i].row] = v;
  }
  start[num_voxels] = m;
  return {coords, inverse, order, offsets};
}

template <typename Key, typename T>
DynamicVoxels sort_into_voxels(const FrameGrid<T>& grid, const std::vector<int64_t>& cells,
                               const at::TensorOptions& options) {
  const auto n = static_cast<int64_t>(cells.size());
  std::vector<KeyedRow<Key>> entries;
  entries.reserve(n);
  for (int64_t i = 0; i < n; ++i)
    if (cells[i] >= 0) entries.push_back({static_cast<Key>(cells[i]), static_cast<int32_t>(i)});
  sort_rows(entries, grid.num_cells());
  return tell_voxels(grid, entries, n, options);
}

DynamicVoxels dynamic_voxelize(const at::Tensor& points, at::ArrayRef<double> voxel_size,
                               at::ArrayRef<double> point_cloud_range, int64_t batch_size, bool any_height) {
  check_dynamic_voxelize(points, voxel_size, point_cloud_range, batch_size);
  const at::Tensor p = points.contiguous();
  const int64_t n = p.size(0), columns = p.size(1);
  DynamicVoxels found;
  AT_DISPATCH_FLOATING_TYPES(p.scalar_type(), "dynamic_voxelize", [&] {
    const auto grid = frame_grid<scalar_t>(voxel_size, point_cloud_range, batch_size, any_height);
    const auto* in = p.const_data_ptr<scalar_t>();
    check_frames(in, columns, n, batch_size);
    std::vector<int64_t> cells(n);
    at::parallel_for(0, n, /*grain_size=*/8 * kItemsPerThread, [&](int64_t begin, int64_t end) {
      frame_cells_of(grid, in + begin * columns, columns, end - begin, cells.data() + begin);
    });
    found = grid.num_cells() <= (int64_t(1) << 32) ? sort_into_voxels<uint32_t>(grid, cells, p.options())
                                                   : sort_into_voxels<uint64_t>(grid, cells, p.options());
  });
  return found;
}

TORCH_LIBRARY_IMPL(pcdet, CPU, m) { m.impl("dynamic_voxelize", &dynamic_voxelize); }

}  // namespace pcdet::PCDET_BACKEND
