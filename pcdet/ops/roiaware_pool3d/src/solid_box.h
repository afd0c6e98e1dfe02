// The rule that says whether a point lies in a box [x, y, z, dx, dy, dz, heading].
#pragma once

#include <pcdet/backend.h>

namespace pcdet::PCDET_BACKEND {

template <typename T>
struct SolidBox {
  T x, y, z, cos, sin;
  T reach_x, reach_y, half_z;  // half sizes; x and y with the margin

  static PCDET_HD SolidBox from(const T* box, T margin) {  // (7,)
    return {box[0],
            box[1],
            box[2],
            std::cos(box[6]),
            std::sin(box[6]),
            T(0.5) * box[3] + margin,
            T(0.5) * box[4] + margin,
            T(0.5) * box[5]};
  }

  // Strict in x and y, where the margin is; inclusive in z. A NaN coordinate is in no box.
  PCDET_HD bool contains(T px, T py, T pz) const {
    const T dx = px - x, dy = py - y;
    const T local_x = dx * cos + dy * sin, local_y = dy * cos - dx * sin;
    return (std::abs(pz - z) <= half_z) & (std::abs(local_x) < reach_x) & (std::abs(local_y) < reach_y);
  }
};

constexpr double kMaskMargin = 1e-2;   // metres; OpenPCDet's points_in_boxes_cpu
constexpr double kIndexMargin = 1e-5;  // metres; OpenPCDet's points_in_boxes_gpu

}  // namespace pcdet::PCDET_BACKEND
