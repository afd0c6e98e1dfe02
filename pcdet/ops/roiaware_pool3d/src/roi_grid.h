// The voxels of a region of interest: which of them a point falls into.
#pragma once

#include "solid_box.h"

namespace pcdet::PCDET_BACKEND {

// The box cut into size_x * size_y * size_z equal parts along its own axes, z fastest.
template <typename T>
struct RoiGrid {
  SolidBox<T> box;
  T length, width, height;
  int32_t size_x, size_y, size_z;

  static PCDET_HD RoiGrid from(const T* roi, int32_t size_x, int32_t size_y, int32_t size_z) {  // (7,)
    return {SolidBox<T>::from(roi, T(kIndexMargin)), roi[3], roi[4], roi[5], size_x, size_y, size_z};
  }

  // -1 outside the box. A point on its border belongs to the last voxel on that side.
  PCDET_HD int32_t voxel_of(T x, T y, T z) const {
    if (!box.contains(x, y, z)) return -1;
    const T dx = x - box.x, dy = y - box.y;
    const int32_t i = part(dx * box.cos + dy * box.sin, length, size_x);
    const int32_t j = part(dy * box.cos - dx * box.sin, width, size_y);
    return (i * size_y + j) * size_z + part(z - box.z, height, size_z);
  }

 private:
  static PCDET_HD int32_t part(T along, T extent, int32_t parts) {
    const T steps = (along + extent / T(2)) / (extent / T(parts));
    if (!(steps > T(0))) return 0;  // also where the extent is 0
    return steps < T(parts) ? static_cast<int32_t>(steps) : parts - 1;
  }
};

}  // namespace pcdet::PCDET_BACKEND
