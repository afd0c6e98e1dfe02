// Every native op of pcdet, one schema per line. Kernels register themselves beside their source; fake (shape)
// functions and gradients are registered in Python beside the docstring.
#include <Python.h>
#include <torch/library.h>

TORCH_LIBRARY(pcdet, m) {
  m.def("boxes_overlap_bev(Tensor boxes_a, Tensor boxes_b) -> Tensor");
  m.def("boxes_iou_bev(Tensor boxes_a, Tensor boxes_b) -> Tensor");
  m.def("boxes_iou3d(Tensor boxes_a, Tensor boxes_b) -> Tensor");
  m.def("paired_boxes_iou3d(Tensor boxes_a, Tensor boxes_b) -> Tensor");
  m.def("nms(Tensor boxes, Tensor scores, float thresh, bool rotated) -> Tensor");
  m.def("points_in_boxes_mask(Tensor points, Tensor boxes) -> Tensor");
  m.def("points_in_boxes_index(Tensor points, Tensor boxes) -> Tensor");
  m.def(
      "voxelize(Tensor points, float[] voxel_size, float[] point_cloud_range, int max_points, int max_voxels)"
      " -> (Tensor, Tensor, Tensor)");
}

// An empty module: importing it runs the registrations.
extern "C" __attribute__((visibility("default"))) PyObject* PyInit__C(void) {
  static PyModuleDef def = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&def);
}
