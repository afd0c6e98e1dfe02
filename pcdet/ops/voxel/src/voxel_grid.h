// The grid of a voxelisation and what its arguments must satisfy.
#pragma once

#include <pcdet/check.h>

namespace pcdet::PCDET_BACKEND {

// Cells are numbered x fastest: (z * size_y + y) * size_x + x. The arithmetic is the points' own, as spconv's is: a
// point on a cell's border must fall on the same side as there.
template <typename T>
struct VoxelGrid {
  T low[3], cell[3];
  int64_t size[3];  // cells along x, y, z

  PCDET_HD int64_t num_cells() const { return size[0] * size[1] * size[2]; }

  // The number of the point's cell; -1 outside the grid, where a NaN or infinite coordinate is too.
  PCDET_HD int64_t cell_of(const T* point) const {
    int64_t at[3];
    for (int k = 0; k < 3; ++k) {
      const T steps = std::floor((point[k] - low[k]) / cell[k]);
      if (!(steps >= T(0) && steps < T(size[k]))) return -1;
      at[k] = static_cast<int64_t>(steps);
    }
    return (at[2] * size[1] + at[1]) * size[0] + at[0];
  }

  // Writes [z, y, x] of a cell.
  PCDET_HD void coords_of(int64_t number, int32_t* zyx) const {
    zyx[2] = static_cast<int32_t>(number % size[0]);
    zyx[1] = static_cast<int32_t>(number / size[0] % size[1]);
    zyx[0] = static_cast<int32_t>(number / size[0] / size[1]);
  }
};

inline void check_grid(const at::Tensor& points, at::ArrayRef<double> voxel_size, at::ArrayRef<double> range) {
  check_float("points", points);
  TORCH_CHECK_VALUE(points.size(0) < std::numeric_limits<int32_t>::max(), "points must number fewer than 2^31, got ",
                    points.size(0));
  TORCH_CHECK_VALUE(voxel_size.size() == 3, "voxel_size must be [dx, dy, dz], got ", voxel_size);
  TORCH_CHECK_VALUE(range.size() == 6, "point_cloud_range must be [x0, y0, z0, x1, y1, z1], got ", range);
  for (int k = 0; k < 3; ++k) {
    TORCH_CHECK_VALUE(std::isfinite(voxel_size[k]) && voxel_size[k] > 0, "voxel_size must be positive, got ",
                      voxel_size);
    TORCH_CHECK_VALUE(std::isfinite(range[k]) && std::isfinite(range[k + 3]) && range[k] < range[k + 3],
                      "point_cloud_range must run from low to high, got ", range);
  }
}

inline void check_voxelize(const at::Tensor& points, at::ArrayRef<double> voxel_size, at::ArrayRef<double> range,
                           int64_t max_points, int64_t max_voxels) {
  TORCH_CHECK_VALUE(points.dim() == 2 && points.size(1) >= 3, "points must have shape (N, 3 + C) [x, y, z, ...], got ",
                    points.sizes());
  check_grid(points, voxel_size, range);
  TORCH_CHECK_VALUE(max_points > 0, "max_points must be positive, got ", max_points);
  TORCH_CHECK_VALUE(max_voxels > 0, "max_voxels must be positive, got ", max_voxels);
}

template <typename T>
VoxelGrid<T> voxel_grid(at::ArrayRef<double> voxel_size, at::ArrayRef<double> range) {
  constexpr double kMostCells = 9e15;  // far below 2^63, and exact in double
  VoxelGrid<T> grid;
  double cells = 1;
  for (int k = 0; k < 3; ++k) {
    grid.low[k] = static_cast<T>(range[k]);
    grid.cell[k] = static_cast<T>(voxel_size[k]);
    const double steps = std::round((range[k + 3] - range[k]) / voxel_size[k]);
    cells *= steps;
    TORCH_CHECK_VALUE(steps >= 1 && steps <= std::numeric_limits<int32_t>::max() && cells <= kMostCells,
                      "point_cloud_range ", range, " must hold at least one and at most 2^31 voxels of ", voxel_size,
                      " along each axis");
    grid.size[k] = static_cast<int64_t>(steps);
  }
  return grid;
}

}  // namespace pcdet::PCDET_BACKEND
