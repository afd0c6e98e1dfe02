// Greedy non-maximum suppression on the CPU: each box in score order meets only the boxes kept so far.
#include <ATen/ops/sort.h>

#include <vector>

#include "suppression.h"

namespace pcdet::PCDET_BACKEND {

// The kept boxes' circles as separate arrays, so that the search for possible suppressors runs in vector registers.
template <typename T>
struct KeptCircles {
  std::vector<T> x, y, radius;
  void push_back(const GroundBox<T>& box) {
    x.push_back(box.x);
    y.push_back(box.y);
    radius.push_back(box.radius);
  }
};

template <bool kRotated, typename T>
std::vector<int64_t> greedy_nms(const GroundBox<T>* boxes, const int64_t* order, int64_t n, T thresh) {
  constexpr int64_t kBlock = 64;  // circles tested together
  std::vector<int64_t> keep;
  KeptCircles<T> circles;
  std::vector<GroundBox<T>> kept;
  const auto is_suppressed = [&](const GroundBox<T>& box) {
    const int64_t count = static_cast<int64_t>(kept.size());
    for (int64_t begin = 0; begin < count; begin += kBlock) {
      const int64_t size = std::min(kBlock, count - begin);
      const T *x = circles.x.data() + begin, *y = circles.y.data() + begin, *radius = circles.radius.data() + begin;
      uint8_t near[kBlock];
      bool any = false;
      for (int64_t k = 0; k < size; ++k) {
        const T dx = x[k] - box.x, dy = y[k] - box.y, reach = radius[k] + box.radius;
        near[k] = dx * dx + dy * dy < reach * reach;
        any |= near[k];
      }
      for (int64_t k = 0; any && k < size; ++k)
        if (near[k] && suppresses<kRotated>(kept[begin + k], box, thresh)) return true;
    }
    return false;
  };
  for (int64_t i = 0; i < n; ++i) {
    const GroundBox<T>& box = boxes[order[i]];
    if (is_suppressed(box)) continue;
    keep.push_back(order[i]);
    circles.push_back(box);
    kept.push_back(box);
  }
  return keep;
}

at::Tensor nms(const at::Tensor& boxes, const at::Tensor& scores, double thresh, bool rotated) {
  check_nms(boxes, scores, thresh);
  const at::Tensor b = boxes.contiguous(), s = scores.contiguous();
  check_finite("boxes", b);
  check_finite("scores", s);
  const at::Tensor order = std::get<1>(at::sort(s, /*stable=*/true, /*dim=*/0, /*descending=*/true)).contiguous();
  std::vector<int64_t> keep;
  AT_DISPATCH_FLOATING_TYPES(b.scalar_type(), "nms", [&] {
    at::Tensor ground = ground_boxes<scalar_t>(b);
    const auto run = rotated ? greedy_nms<true, scalar_t> : greedy_nms<false, scalar_t>;
    keep = run(as_ground_boxes<scalar_t>(ground), order.const_data_ptr<int64_t>(), b.size(0),
               static_cast<scalar_t>(thresh));
  });
  at::Tensor out = at::empty({static_cast<int64_t>(keep.size())}, order.options());
  std::copy(keep.begin(), keep.end(), out.mutable_data_ptr<int64_t>());
  return out;
}

TORCH_LIBRARY_IMPL(pcdet, CPU, m) { m.impl("nms", &nms); }

}  // namespace pcdet::PCDET_BACKEND
