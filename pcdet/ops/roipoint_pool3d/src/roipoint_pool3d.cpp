// Pooling of the points in boxes on the CPU: a box walks the points in order until it has enough.
#include <vector>

#include "roipoint_pool3d_host.h"

namespace pcdet::PCDET_BACKEND {

template <typename T>
struct FirstInside {
  static constexpr int64_t kBlock = 64;  // points tested together
  const T *x, *y, *z;                    // (N,)
  int64_t n, room;

  // Writes the first `room` rows of points in the box, and returns their number.
  int32_t operator()(const SolidBox<T>& box, int32_t* chosen) const {
    int64_t found = 0;
    for (int64_t first = 0; first < n && found < room; first += kBlock) {
      const int64_t size = std::min(kBlock, n - first);
      uint8_t inside[kBlock];
      for (int64_t k = 0; k < size; ++k) inside[k] = box.contains(x[first + k], y[first + k], z[first + k]);
      for (int64_t k = 0; k < size && found < room; ++k)
        if (inside[k]) chosen[found++] = static_cast<int32_t>(first + k);
    }
    return static_cast<int32_t>(found);
  }
};

struct CpuRoipointPool3d {
  template <typename T>
  static void choose_points(const T* points, const T* boxes, int64_t frames, int64_t n, int64_t num_boxes, int64_t room,
                            int32_t* chosen, int32_t* num_found) {
    const int64_t boxes_per_thread = std::max<int64_t>(1, kPairsPerThread / std::max<int64_t>(n, 1));
    std::vector<T> x(n), y(n), z(n);
    for (int64_t frame = 0; frame < frames; ++frame) {
      for (int64_t k = 0; k < n; ++k) {
        const T* p = points + (frame * n + k) * 3;
        x[k] = p[0], y[k] = p[1], z[k] = p[2];
      }
      const FirstInside<T> first_inside{x.data(), y.data(), z.data(), n, room};
      at::parallel_for(0, num_boxes, boxes_per_thread, [&](int64_t begin, int64_t end) {
        for (int64_t row = frame * num_boxes + begin; row < frame * num_boxes + end; ++row)
          num_found[row] = first_inside(SolidBox<T>::from(boxes + row * 7, T(kIndexMargin)), chosen + row * room);
      });
    }
  }
};

TORCH_LIBRARY_IMPL(pcdet, CPU, m) { register_roipoint_pool3d<CpuRoipointPool3d>(m); }

}  // namespace pcdet::PCDET_BACKEND
