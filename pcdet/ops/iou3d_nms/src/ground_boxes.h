// Boxes made ready for many pairs, on the device where they are.
#pragma once

#include <pcdet/backend.h>

#include "box_geometry.h"

namespace pcdet::PCDET_BACKEND {

template <typename T>
struct PrepareBox {
  const T* boxes;          // (N, 7)
  GroundBox<T>* prepared;  // (N,)
  PCDET_HD void operator()(int64_t i) const { prepared[i] = GroundBox<T>::from(boxes + i * 7); }
};

template <typename T>
GroundBox<T>* as_ground_boxes(at::Tensor& prepared) {
  return reinterpret_cast<GroundBox<T>*>(prepared.mutable_data_ptr<T>());
}

// (N, 7) contiguous boxes -> N GroundBox<T>, held in a tensor so that the allocator of the device provides the memory.
template <typename T>
at::Tensor ground_boxes(const at::Tensor& boxes) {
  static_assert(sizeof(GroundBox<T>) % sizeof(T) == 0);
  at::Tensor out = at::empty({boxes.size(0), sizeof(GroundBox<T>) / sizeof(T)}, boxes.options());
  for_each(boxes.size(0), PrepareBox<T>{boxes.const_data_ptr<T>(), as_ground_boxes<T>(out)});
  return out;
}

}  // namespace pcdet::PCDET_BACKEND
