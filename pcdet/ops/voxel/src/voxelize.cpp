// Hard voxelisation on the CPU: one walk over the points finds each one's voxel and slot, a second one copies.
#include <ATen/EmptyTensor.h>
#include <pcdet/simd.h>

#include <bit>
#include <vector>

#include "spare_block.h"
#include "voxel_grid.h"

namespace pcdet::PCDET_BACKEND {

constexpr int32_t kNone = -1;

// Cell -> voxel as a plain array, for grids small enough to stay in the cache. Kept between calls, one for each thread;
// a call takes back only what it wrote.
class CellArray {
 public:
  explicit CellArray(int64_t num_cells) {
    thread_local std::vector<int32_t> table;
    if (static_cast<int64_t>(table.size()) < num_cells) table.resize(num_cells, kNone);
    table_ = table.data();
  }
  ~CellArray() {
    for (int64_t cell : written_) table_[cell] = kNone;
  }
  // The voxel of a cell, to be written by the caller if it is kNone.
  int32_t& find(int64_t cell) { return table_[cell]; }
  void fetch(int64_t cell) const { __builtin_prefetch(table_ + cell, 1); }
  void note(int64_t cell) { written_.push_back(cell); }

 private:
  int32_t* table_;
  std::vector<int64_t> written_;
};

// Cell -> voxel as an open-addressing hash table at most half full, for grids of any size.
class CellHash {
 public:
  explicit CellHash(int64_t num_points) {
    const auto capacity = std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(2 * num_points, 64)));
    shift_ = 64 - std::countr_zero(capacity);
    mask_ = capacity - 1;
    slots_.assign(capacity, Slot{kNone, kNone});
  }
  int32_t& find(int64_t cell) {
    for (uint64_t at = home(cell);; at = (at + 1) & mask_) {
      if (slots_[at].cell == cell) return slots_[at].voxel;
      if (slots_[at].cell == kNone) {
        slots_[at].cell = cell;
        return slots_[at].voxel;
      }
    }
  }
  void fetch(int64_t cell) const { __builtin_prefetch(slots_.data() + home(cell), 1); }
  void note(int64_t) {}

 private:
  struct Slot {
    int64_t cell;
    int32_t voxel;
  };
  uint64_t home(int64_t cell) const {
    constexpr uint64_t kGolden = 0x9E3779B97F4A7C15ull;  // 2^64 / golden ratio: Fibonacci hashing
    return static_cast<uint64_t>(cell) * kGolden >> shift_;
  }
  std::vector<Slot> slots_;
  int shift_;
  uint64_t mask_;
};

// cells[i] = grid.cell_of(point i), -1 outside.
template <typename T>
inline void find_cells(const VoxelGrid<T>& grid, const T* points, int64_t stride, int64_t n, int64_t* cells) {
  for (int64_t i = 0; i < n; ++i) cells[i] = grid.cell_of(points + i * stride);
}
PCDET_WIDE void cells_of(const VoxelGrid<float>& grid, const float* points, int64_t stride, int64_t n, int64_t* cells) {
  find_cells(grid, points, stride, n, cells);
}
PCDET_WIDE void cells_of(const VoxelGrid<double>& grid, const double* points, int64_t stride, int64_t n,
                         int64_t* cells) {
  find_cells(grid, points, stride, n, cells);
}

// Where every point goes, and every voxel's cell and number of points, in order of first appearance.
struct Assignment {
  std::vector<int32_t> voxel_of_point, slot_of_point;  // (N,); voxel -1: dropped
  std::vector<int64_t> cells;                          // (V,)
  std::vector<int32_t> counts;                         // (V,)
};

template <typename Table>
Assignment assign_points(Table table, const std::vector<int64_t>& cell_of_point, int32_t max_points,
                         int64_t max_voxels) {
  constexpr int64_t kAhead = 16;  // points between asking for a table entry and using it
  const auto n = static_cast<int64_t>(cell_of_point.size());
  Assignment out;
  out.voxel_of_point.resize(n);
  out.slot_of_point.resize(n);
  for (int64_t i = 0; i < n; ++i) {
    if (i + kAhead < n && cell_of_point[i + kAhead] >= 0) table.fetch(cell_of_point[i + kAhead]);
    const int64_t cell = cell_of_point[i];
    int32_t voxel = kNone;
    if (cell >= 0) {
      int32_t& entry = table.find(cell);
      if (entry == kNone && static_cast<int64_t>(out.cells.size()) < max_voxels) {
        entry = static_cast<int32_t>(out.cells.size());
        table.note(cell);
        out.cells.push_back(cell);
        out.counts.push_back(0);
      }
      voxel = entry;
    }
    const bool has_room = voxel != kNone && out.counts[voxel] < max_points;
    out.voxel_of_point[i] = has_room ? voxel : kNone;
    out.slot_of_point[i] = has_room ? out.counts[voxel]++ : 0;
  }
  return out;
}

template <typename T>
Assignment assign_points(const VoxelGrid<T>& grid, const T* points, int64_t n, int64_t stride, int64_t max_points,
                         int64_t max_voxels) {
  constexpr int64_t kArrayCells = int64_t(1) << 20;  // 4 MB; larger grids are hashed
  std::vector<int64_t> cells(n);
  at::parallel_for(0, n, /*grain_size=*/8 * kItemsPerThread, [&](int64_t begin, int64_t end) {
    cells_of(grid, points + begin * stride, stride, end - begin, cells.data() + begin);
  });
  const auto room = static_cast<int32_t>(std::min<int64_t>(max_points, std::numeric_limits<int32_t>::max()));
  return grid.num_cells() <= kArrayCells ? assign_points(CellArray(grid.num_cells()), cells, room, max_voxels)
                                         : assign_points(CellHash(n), cells, room, max_voxels);
}

// Fills (V, P, C) `out`: the points to their slots, zeros behind them.
template <typename T>
void copy_points(const Assignment& to, const T* points, int64_t channels, int64_t max_points, T* out) {
  const int64_t voxel_stride = max_points * channels;
  for (size_t i = 0; i < to.voxel_of_point.size(); ++i) {
    if (to.voxel_of_point[i] == kNone) continue;
    T* row = out + to.voxel_of_point[i] * voxel_stride + to.slot_of_point[i] * channels;
    for (int64_t c = 0; c < channels; ++c) row[c] = points[i * channels + c];
  }
  for (int64_t v = 0, count = static_cast<int64_t>(to.counts.size()); v < count; ++v)
    std::fill(out + v * voxel_stride + to.counts[v] * channels, out + (v + 1) * voxel_stride, T(0));
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> voxelize(const at::Tensor& points, at::ArrayRef<double> voxel_size,
                                                        at::ArrayRef<double> point_cloud_range, int64_t max_points,
                                                        int64_t max_voxels) {
  check_voxelize(points, voxel_size, point_cloud_range, max_points, max_voxels);
  const at::Tensor p = points.contiguous();
  const int64_t n = p.size(0), channels = p.size(1);
  at::Tensor voxels, coords, num_points;
  AT_DISPATCH_FLOATING_TYPES(p.scalar_type(), "voxelize", [&] {
    const auto grid = voxel_grid<scalar_t>(voxel_size, point_cloud_range);
    const auto* in = p.const_data_ptr<scalar_t>();
    const Assignment to = assign_points(grid, in, n, channels, max_points, max_voxels);
    const auto v = static_cast<int64_t>(to.cells.size());
    const auto ints = p.options().dtype(at::kInt);
    voxels = at::detail::empty_generic({v, max_points, channels}, SpareBlockAllocator::get(),
                                       c10::DispatchKeySet(c10::DispatchKey::CPU), p.scalar_type(), std::nullopt);
    coords = at::empty({v, 3}, ints);
    num_points = at::empty({v}, ints);
    copy_points(to, in, channels, max_points, voxels.mutable_data_ptr<scalar_t>());
    for (int64_t k = 0; k < v; ++k) grid.coords_of(to.cells[k], coords.mutable_data_ptr<int32_t>() + k * 3);
    std::copy(to.counts.begin(), to.counts.end(), num_points.mutable_data_ptr<int32_t>());
  });
  return {voxels, coords, num_points};
}

TORCH_LIBRARY_IMPL(pcdet, CPU, m) { m.impl("voxelize", &voxelize); }

}  // namespace pcdet::PCDET_BACKEND
