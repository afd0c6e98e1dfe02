// Bird's-eye-view geometry of rotated boxes [x, y, z, dx, dy, dz, heading]. Plain maths: no tensors, no allocation.
#pragma once

#include <pcdet/platform.h>

#include <cmath>

namespace pcdet::PCDET_BACKEND {

// A box with what every pair needs already computed. A box with a NaN or infinite entry has x = NaN, which spreads.
template <typename T>
struct GroundBox {
  T x, y, half_x, half_y;
  T cos, sin;
  T radius, area;  // of the rectangle on the ground
  T z_min, z_max;

  static PCDET_HD GroundBox from(const T* box) {  // (7,)
    using std::cos, std::sin, std::sqrt;
    const T half_x = T(0.5) * box[3], half_y = T(0.5) * box[4], half_z = T(0.5) * box[5];
    T poison = 0;
    for (int k = 0; k < 7; ++k) poison += T(0) * box[k];
    return {box[0] + poison,
            box[1],
            half_x,
            half_y,
            cos(box[6]),
            sin(box[6]),
            sqrt(half_x * half_x + half_y * half_y),
            box[3] * box[4],
            box[2] - half_z,
            box[2] + half_z};
  }
};

template <typename T>
PCDET_HD T clamp(T value, T low, T high) {
  return value < low ? low : (value > high ? high : value);
}

// [x0, x1] x [y0, y1], seen from the other box's centre.
template <typename T>
struct Window {
  T x0, x1, y0, y1;
};

// Integral of clamp(y) d clamp(x) along the edge from p to p + d, where clamp() moves a point to the nearest one of the
// window. inverse_dx is 1 / dx, or 0 for an upright edge, which contributes nothing.
template <typename T>
PCDET_HD T clamped_edge_integral(const Window<T>& w, T px, T py, T dx, T dy, T inverse_dx) {
  const T xa = clamp(px, w.x0, w.x1), xb = clamp(px + dx, w.x0, w.x1);
  const T ya = py + clamp((xa - px) * inverse_dx, T(0), T(1)) * dy;
  const T yb = py + clamp((xb - px) * inverse_dx, T(0), T(1)) * dy;
  const T ca = clamp(ya, w.y0, w.y1), cb = clamp(yb, w.y0, w.y1);
  // The mean height of a clamped straight line: constant, slope, constant. Written so that a level line loses nothing.
  const T rise = yb - ya;
  const T weight = rise == T(0) ? T(0.5) : (yb - T(0.5) * (ca + cb)) / rise;
  return (xb - xa) * (ca + (cb - ca) * weight);
}

// Area (m^2) that the ground rectangles of two boxes share; 0 at once if that area cannot exceed `enough`.
//
// In a's axes a is a window. Clamping b's boundary into the window leaves a closed curve around exactly a n b (what
// lies outside collapses onto the window's edge and encloses nothing), so the area is one line integral over b's four
// edges, by Green's theorem. No intersection points, no sorting, no tolerance: touching and identical boxes are nothing
// special, and the error is a few roundings of the area. Boxes with a gap between them share exactly 0, whether or not
// the compiler fuses multiplications and additions.
template <typename T>
PCDET_HD T overlap_bev(const GroundBox<T>& a, const GroundBox<T>& b, T enough = T(0)) {
  using std::abs;
  const T dx = b.x - a.x, dy = b.y - a.y, reach = a.radius + b.radius;
  const T distance2 = dx * dx + dy * dy;
  if (distance2 >= reach * reach) return T(0);

  const T cx = a.cos * dx + a.sin * dy, cy = a.cos * dy - a.sin * dx;
  const T c = a.cos * b.cos + a.sin * b.sin, s = a.cos * b.sin - a.sin * b.cos;
  const T ux = c * b.half_x, uy = s * b.half_x, vx = -s * b.half_y, vy = c * b.half_y;
  const Window<T> w{-a.half_x - cx, a.half_x - cx, -a.half_y - cy, a.half_y - cy};

  // b's bounding rectangle in a's axes: an upper bound of the area, and most pairs end here.
  const T ex = abs(ux) + abs(vx), ey = abs(uy) + abs(vy);
  const T wide = (w.x1 < ex ? w.x1 : ex) - (w.x0 > -ex ? w.x0 : -ex);
  const T high = (w.y1 < ey ? w.y1 : ey) - (w.y0 > -ey ? w.y0 : -ey);
  if (wide <= T(0) || high <= T(0) || wide * high <= enough) return T(0);

  // The same in b's axes. Rectangles that are apart are so along one of the four axes (the separating axis theorem),
  // and share exactly 0: the integral alone would leave a few roundings, enough to suppress a box at a threshold of 0.
  const T fx = abs(c) * a.half_x + abs(s) * a.half_y, fy = abs(s) * a.half_x + abs(c) * a.half_y;
  const T gx = abs(b.cos * dx + b.sin * dy), gy = abs(b.cos * dy - b.sin * dx);
  if (gx >= b.half_x + fx || gy >= b.half_y + fy) return T(0);

  constexpr T kUpright = T(1e-30);
  const T iu = abs(ux) > kUpright ? T(-0.5) / ux : T(0), iv = abs(vx) > kUpright ? T(-0.5) / vx : T(0);
  const T twice = T(-2);
  const T area = -(clamped_edge_integral(w, ux + vx, uy + vy, twice * ux, twice * uy, iu) +
                   clamped_edge_integral(w, vx - ux, vy - uy, twice * vx, twice * vy, iv) +
                   clamped_edge_integral(w, -ux - vx, -uy - vy, -twice * ux, -twice * uy, -iu) +
                   clamped_edge_integral(w, ux - vx, uy - vy, -twice * vx, -twice * vy, -iv));
  return clamp(area, T(0), a.area < b.area ? a.area : b.area) + T(0) * distance2;
}

// Heading ignored: the area shared by [x +- dx/2] x [y +- dy/2].
template <typename T>
PCDET_HD T overlap_upright(const GroundBox<T>& a, const GroundBox<T>& b) {
  using std::abs;
  const T dx = abs(b.x - a.x), dy = abs(b.y - a.y);
  T wide = a.half_x + b.half_x - dx, high = a.half_y + b.half_y - dy;
  const T narrow = T(2) * (a.half_x < b.half_x ? a.half_x : b.half_x);
  const T low = T(2) * (a.half_y < b.half_y ? a.half_y : b.half_y);
  if (wide > narrow) wide = narrow;
  if (high > low) high = low;
  return wide <= T(0) || high <= T(0) ? T(0) : wide * high;
}

// Intersection over union on the ground, with the reference's floor under the union.
template <typename T>
PCDET_HD T iou_bev(const GroundBox<T>& a, const GroundBox<T>& b) {
  const T shared = overlap_bev(a, b);
  const T both = a.area + b.area - shared;
  return shared / (both < T(1e-8) ? T(1e-8) : both);
}

// Intersection over union of the boxes' volumes.
template <typename T>
PCDET_HD T iou_3d(const GroundBox<T>& a, const GroundBox<T>& b) {
  const T height = (a.z_max < b.z_max ? a.z_max : b.z_max) - (a.z_min > b.z_min ? a.z_min : b.z_min);
  const T shared = overlap_bev(a, b) * (height > T(0) ? height : T(0));
  const T both = a.area * (a.z_max - a.z_min) + b.area * (b.z_max - b.z_min) - shared;
  return shared / (both < T(1e-6) ? T(1e-6) : both);
}

}  // namespace pcdet::PCDET_BACKEND
