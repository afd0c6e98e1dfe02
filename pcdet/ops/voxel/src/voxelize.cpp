// Hard voxelisation on the CPU: one walk over the points finds each one's voxel and slot, a second one copies.
#include <bit>
#include <cstring>
#include <vector>

#include "voxel_grid.h"

namespace pcdet::PCDET_BACKEND {

constexpr int32_t kNone = -1;

// Cell -> voxel as a plain array, for grids small enough to stay in the cache. Kept between calls, one for each thread;
// a call takes back only what it wrote.
class CellArray {
 public:
  explicit CellArray(int64_t num_cells) {
    if (static_cast<int64_t>(voxel_of_cell().size()) < num_cells) voxel_of_cell().resize(num_cells, kNone);
    table_ = voxel_of_cell().data();
  }
  int32_t& operator[](int64_t cell) { return table_[cell]; }
  void forget(const std::vector<int64_t>& cells) {
    for (int64_t cell : cells) table_[cell] = kNone;
  }

 private:
  static std::vector<int32_t>& voxel_of_cell() {
    thread_local std::vector<int32_t> table;
    return table;
  }
  int32_t* table_;
};

// Cell -> voxel as an open-addressing hash table of twice the number of points, for grids of any size.
class CellHash {
 public:
  explicit CellHash(int64_t num_points) {
    const auto capacity = std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(2 * num_points, 64)));
    shift_ = 64 - std::countr_zero(capacity);
    mask_ = capacity - 1;
    slots_.assign(capacity, Slot{kNone, kNone});
  }
  int32_t& operator[](int64_t cell) {
    constexpr uint64_t kGolden = 0x9E3779B97F4A7C15ull;  // 2^64 / golden ratio: Fibonacci hashing
    for (uint64_t at = static_cast<uint64_t>(cell) * kGolden >> shift_;; at = (at + 1) & mask_) {
      if (slots_[at].cell == cell) return slots_[at].voxel;
      if (slots_[at].cell == kNone) {
        slots_[at].cell = cell;
        return slots_[at].voxel;
      }
    }
  }
  void forget(const std::vector<int64_t>&) {}

 private:
  struct Slot {
    int64_t cell;
    int32_t voxel;
  };
  std::vector<Slot> slots_;
  int shift_;
  uint64_t mask_;
};

// Where every point goes, and every voxel's cell and number of points, in order of first appearance.
struct Assignment {
  std::vector<int32_t> voxel_of_point, slot_of_point;  // (N,); voxel -1: dropped
  std::vector<int64_t> cells;                          // (V,)
  std::vector<int32_t> counts;                         // (V,)
};

template <typename Table, typename T>
Assignment assign_points(Table table, const VoxelGrid<T>& grid, const T* points, int64_t n, int64_t stride,
                         int32_t max_points, int64_t max_voxels) {
  Assignment out;
  out.voxel_of_point.resize(n);
  out.slot_of_point.resize(n);
  int64_t last_cell = -1;  // consecutive points of a scan often share a voxel
  int32_t last_voxel = kNone;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t cell = grid.cell_of(points + i * stride);
    int32_t voxel = kNone;
    if (cell >= 0 && cell == last_cell) {
      voxel = last_voxel;
    } else if (cell >= 0) {
      int32_t& entry = table[cell];
      if (entry == kNone && static_cast<int64_t>(out.cells.size()) < max_voxels) {
        entry = static_cast<int32_t>(out.cells.size());
        out.cells.push_back(cell);
        out.counts.push_back(0);
      }
      voxel = last_voxel = entry;
      last_cell = cell;
    }
    const bool has_room = voxel != kNone && out.counts[voxel] < max_points;
    out.voxel_of_point[i] = has_room ? voxel : kNone;
    out.slot_of_point[i] = has_room ? out.counts[voxel]++ : 0;
  }
  table.forget(out.cells);
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> voxelize(const at::Tensor& points, at::ArrayRef<double> voxel_size,
                                                        at::ArrayRef<double> point_cloud_range, int64_t max_points,
                                                        int64_t max_voxels) {
  constexpr int64_t kArrayCells = int64_t(1) << 22;  // 16 MB; larger grids are hashed
  check_voxelize(points, voxel_size, point_cloud_range, max_points, max_voxels);
  const at::Tensor p = points.contiguous();
  const int64_t n = p.size(0), channels = p.size(1);
  at::Tensor voxels, coords, num_points;
  AT_DISPATCH_FLOATING_TYPES(p.scalar_type(), "voxelize", [&] {
    const auto grid = voxel_grid<scalar_t>(voxel_size, point_cloud_range);
    const auto* in = p.const_data_ptr<scalar_t>();
    const auto room = static_cast<int32_t>(std::min<int64_t>(max_points, std::numeric_limits<int32_t>::max()));
    const Assignment to = grid.num_cells() <= kArrayCells
                              ? assign_points(CellArray(grid.num_cells()), grid, in, n, channels, room, max_voxels)
                              : assign_points(CellHash(n), grid, in, n, channels, room, max_voxels);
    const auto v = static_cast<int64_t>(to.cells.size());
    const auto ints = p.options().dtype(at::kInt);
    voxels = at::empty({v, max_points, channels}, p.options());
    coords = at::empty({v, 3}, ints);
    num_points = at::empty({v}, ints);
    auto* out = voxels.mutable_data_ptr<scalar_t>();
    const int64_t voxel_stride = max_points * channels;
    for (int64_t i = 0; i < n; ++i) {
      if (to.voxel_of_point[i] == kNone) continue;
      scalar_t* row = out + to.voxel_of_point[i] * voxel_stride + to.slot_of_point[i] * channels;
      for (int64_t c = 0; c < channels; ++c) row[c] = in[i * channels + c];
    }
    for (int64_t k = 0; k < v; ++k) {
      scalar_t* voxel = out + k * voxel_stride;
      std::fill(voxel + to.counts[k] * channels, voxel + voxel_stride, scalar_t(0));
      grid.coords_of(to.cells[k], coords.mutable_data_ptr<int32_t>() + k * 3);
    }
    std::copy(to.counts.begin(), to.counts.end(), num_points.mutable_data_ptr<int32_t>());
  });
  return {voxels, coords, num_points};
}

TORCH_LIBRARY_IMPL(pcdet, CPU, m) { m.impl("voxelize", &voxelize); }

}  // namespace pcdet::PCDET_BACKEND
