// Which points lie in which boxes, on the GPU: one thread for each point and box, or for each point.
#include "points_in_boxes_host.h"

namespace pcdet::PCDET_BACKEND {

template <typename T>
struct MaskOfPair {
  const T *points, *boxes;  // (P, 3), (N, 7)
  int32_t* mask;            // (N, P)
  int64_t num_points;
  PCDET_HD void operator()(int64_t i, int64_t j) const {
    const T* p = points + j * 3;
    mask[i * num_points + j] = SolidBox<T>::from(boxes + i * 7, T(kMaskMargin)).contains(p[0], p[1], p[2]);
  }
};

template <typename T>
struct FirstBoxOfPoint {
  const T *points, *boxes;  // (B, P, 3), (B, T, 7)
  int32_t* index;           // (B, P)
  int64_t num_points, num_boxes;
  PCDET_HD void operator()(int64_t frame, int64_t j) const {
    const T* p = points + (frame * num_points + j) * 3;
    int32_t first = -1;
    for (int64_t k = 0; k < num_boxes && first < 0; ++k)
      if (SolidBox<T>::from(boxes + (frame * num_boxes + k) * 7, T(kIndexMargin)).contains(p[0], p[1], p[2]))
        first = static_cast<int32_t>(k);
    index[frame * num_points + j] = first;
  }
};

struct CudaPointsInBoxes {
  template <typename T>
  static void fill_mask(const T* points, int64_t num_points, const T* boxes, int64_t num_boxes, int32_t* mask) {
    for_each_pair(num_boxes, num_points, MaskOfPair<T>{points, boxes, mask, num_points});
  }

  template <typename T>
  static void fill_index(const T* points, const T* boxes, int32_t* index, int64_t frames, int64_t num_points,
                         int64_t num_boxes) {
    for_each_pair(frames, num_points, FirstBoxOfPoint<T>{points, boxes, index, num_points, num_boxes});
  }
};

TORCH_LIBRARY_IMPL(pcdet, CUDA, m) { register_points_in_boxes<CudaPointsInBoxes>(m); }

}  // namespace pcdet::PCDET_BACKEND
