// The grids of all frames of a batch, one after the other, and what the arguments of a dynamic voxelisation must
// satisfy.
#pragma once

#include "voxel_grid.h"

namespace pcdet::PCDET_BACKEND {

// Cells are numbered as in VoxelGrid, frame by frame.
template <typename T>
struct FrameGrid {
  VoxelGrid<T> grid;
  int64_t frames;
  bool any_height;  // the grid has one layer, and a point's height is not looked at

  PCDET_HD int64_t num_cells() const { return frames * grid.num_cells(); }

  // The number of the cell of a point [batch_idx, x, y, z, ...]; -1 outside the grid or the batch.
  PCDET_HD int64_t cell_of(const T* point) const {
    if (!(point[0] >= T(0) && point[0] < T(frames))) return -1;
    T at[3] = {point[1], point[2], point[3]};
    if (any_height) {
      if (!(at[2] - at[2] == T(0))) return -1;  // NaN or infinite
      at[2] = grid.low[2];
    }
    const int64_t cell = grid.cell_of(at);
    return cell < 0 ? -1 : static_cast<int64_t>(point[0]) * grid.num_cells() + cell;
  }

  // Writes [batch_idx, z, y, x] of a cell.
  PCDET_HD void coords_of(int64_t number, int32_t* coords) const {
    const int64_t cells = grid.num_cells();
    coords[0] = static_cast<int32_t>(number / cells);
    grid.coords_of(number % cells, coords + 1);
  }
};

inline void check_dynamic_voxelize(const at::Tensor& points, at::ArrayRef<double> voxel_size,
                                   at::ArrayRef<double> range, int64_t batch_size) {
  TORCH_CHECK_VALUE(points.dim() == 2 && points.size(1) >= 4,
                    "points must have shape (N, 4 + C) [batch_idx, x, y, z, ...], got ", points.sizes());
  check_grid(points, voxel_size, range);
  TORCH_CHECK_VALUE(batch_size > 0 && batch_size <= (1 << 20), "batch_size must lie in [1, 2^20], got ", batch_size);
}

template <typename T>
FrameGrid<T> frame_grid(at::ArrayRef<double> voxel_size, at::ArrayRef<double> range, int64_t batch_size,
                        bool any_height) {
  FrameGrid<T> all{voxel_grid<T>(voxel_size, range), batch_size, any_height};
  if (any_height) all.grid.size[2] = 1;
  const double cells = static_cast<double>(all.grid.num_cells()) * static_cast<double>(batch_size);
  TORCH_CHECK_VALUE(cells <= 9e15, "point_cloud_range ", range, " must hold at most 9e15 voxels of ", voxel_size,
                    " in ", batch_size, " frames");
  return all;
}

}  // namespace pcdet::PCDET_BACKEND
