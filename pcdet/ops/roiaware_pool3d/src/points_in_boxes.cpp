// Which points lie in which boxes, on the CPU: points in blocks, so that most boxes are dismissed a block at a time and
// the rest of the work runs in vector registers.
#include <pcdet/simd.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include <vector>

#include "points_in_boxes_host.h"

namespace pcdet::PCDET_BACKEND {

constexpr int64_t kBlockPoints = 128;  // points whose coordinates are held side by side in the first-level cache

// kBlockPoints points as three rows, with the rectangle around them: most boxes miss most blocks of a scan.
template <typename T>
struct PointBlock {
  T x[kBlockPoints], y[kBlockPoints], z[kBlockPoints];
  T centre_x, centre_y, radius;
  int64_t size;

  PointBlock(const T* points, int64_t count) : size(count) {  // (count, 3)
    T x_low = points[0], x_high = x_low, y_low = points[1], y_high = y_low;
    bool ordinary = true;
    for (int64_t k = 0; k < count; ++k) {
      x[k] = points[k * 3];
      y[k] = points[k * 3 + 1];
      z[k] = points[k * 3 + 2];
      ordinary &= x[k] - x[k] == T(0) && y[k] - y[k] == T(0);
      x_low = std::min(x_low, x[k]);
      x_high = std::max(x_high, x[k]);
      y_low = std::min(y_low, y[k]);
      y_high = std::max(y_high, y[k]);
    }
    centre_x = T(0.5) * (x_low + x_high);
    centre_y = T(0.5) * (y_low + y_high);
    radius = ordinary ? std::hypot(x_high - centre_x, y_high - centre_y) : std::numeric_limits<T>::infinity();
  }

  bool may_touch(const SolidBox<T>& box) const {
    const T reach = (radius + std::hypot(box.reach_x, box.reach_y)) * T(1.0001);
    const T dx = box.x - centre_x, dy = box.y - centre_y;
    return !(dx * dx + dy * dy > reach * reach);
  }
};

template <typename T>
std::vector<SolidBox<T> > solid_boxes(const T* boxes, int64_t count, double margin) {
  std::vector<SolidBox<T> > out;
  out.reserve(count);
  for (int64_t i = 0; i < count; ++i) out.push_back(SolidBox<T>::from(boxes + i * 7, static_cast<T>(margin)));
  return out;
}

template <typename T, typename PerBlock>
void for_each_block(const T* points, int64_t num_points, int64_t num_boxes, PerBlock per_block) {
  const int64_t blocks = (num_points + kBlockPoints - 1) / kBlockPoints;
  const int64_t blocks_per_thread = std::max<int64_t>(1, 4 * kPairsPerThread / (kBlockPoints * (num_boxes + 4)));
  at::parallel_for(0, blocks, blocks_per_thread, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      per_block(b * kBlockPoints,
                PointBlock<T>(points + b * kBlockPoints * 3, std::min(kBlockPoints, num_points - b * kBlockPoints)));
  });
}

// row[k] = whether point k of the block lies in the box.
template <typename T>
inline void test_points(const PointBlock<T>& block, const SolidBox<T> box, int32_t* row) {
  for (int64_t k = 0; k < block.size; ++k) row[k] = box.contains(block.x[k], block.y[k], block.z[k]);
}
PCDET_WIDE void mask_block(const PointBlock<float>& block, const SolidBox<float>& box, int32_t* row) {
  test_points(block, box, row);
}
PCDET_WIDE void mask_block(const PointBlock<double>& block, const SolidBox<double>& box, int32_t* row) {
  test_points(block, box, row);
}

// first[k] = number where point k of the block lies in the box.
template <typename T>
inline void number_points(const PointBlock<T>& block, const SolidBox<T> box, int32_t number, int32_t* first) {
  for (int64_t k = 0; k < block.size; ++k)
    first[k] = box.contains(block.x[k], block.y[k], block.z[k]) ? number : first[k];
}
PCDET_WIDE void number_block(const PointBlock<float>& block, const SolidBox<float>& box, int32_t number,
                             int32_t* first) {
  number_points(block, box, number, first);
}
PCDET_WIDE void number_block(const PointBlock<double>& block, const SolidBox<double>& box, int32_t number,
                             int32_t* first) {
  number_points(block, box, number, first);
}

// Writes a row of the mask past the caches: it is tens of MB, and an ordinary store would first read every line that it
// overwrites. `end_of_stream` makes the rows visible to other threads.
inline void stream_row(const int32_t* row, int64_t size, int32_t* out) {
#ifdef __SSE2__
  for (; size > 0 && reinterpret_cast<uintptr_t>(out) % 16 != 0; --size) *out++ = *row++;
  for (; size >= 4; size -= 4, out += 4, row += 4)
    _mm_stream_si128(reinterpret_cast<__m128i*>(out), _mm_loadu_si128(reinterpret_cast<const __m128i*>(row)));
#endif
  std::copy_n(row, size, out);
}
inline void end_of_stream() {
#ifdef __SSE2__
  _mm_sfence();
#endif
}

struct CpuPointsInBoxes {
  template <typename T>
  static void fill_mask(const T* points, int64_t num_points, const T* boxes, int64_t num_boxes, int32_t* mask) {
    const auto solid = solid_boxes(boxes, num_boxes, kMaskMargin);
    for_each_block(points, num_points, num_boxes, [&](int64_t start, const PointBlock<T>& block) {
      alignas(64) static constexpr int32_t kOutside[kBlockPoints] = {};
      alignas(64) int32_t inside[kBlockPoints];
      for (int64_t i = 0; i < num_boxes; ++i) {
        const bool touched = block.may_touch(solid[i]);
        if (touched) mask_block(block, solid[i], inside);
        stream_row(touched ? inside : kOutside, block.size, mask + i * num_points + start);
      }
      end_of_stream();
    });
  }

  template <typename T>
  static void fill_index(const T* points, const T* boxes, int32_t* index, int64_t frames, int64_t num_points,
                         int64_t num_boxes) {
    for (int64_t frame = 0; frame < frames; ++frame) {
      const auto solid = solid_boxes(boxes + frame * num_boxes * 7, num_boxes, kIndexMargin);
      for_each_block(points + frame * num_points * 3, num_points, num_boxes,
                     [&](int64_t start, const PointBlock<T>& block) {
                       int32_t* out = index + frame * num_points + start;
                       std::fill_n(out, block.size, -1);
                       for (int64_t i = num_boxes - 1; i >= 0; --i)  // backwards: the first box writes last
                         if (block.may_touch(solid[i])) number_block(block, solid[i], static_cast<int32_t>(i), out);
                     });
    }
  }
};

TORCH_LIBRARY_IMPL(pcdet, CPU, m) { register_points_in_boxes<CpuPointsInBoxes>(m); }

}  // namespace pcdet::PCDET_BACKEND
