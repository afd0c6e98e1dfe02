// Every native op of pcdet, one schema per line. Kernels register themselves beside their source; fake (shape)
// functions and gradients are registered in Python beside the docstring. Python loads the library as it is, without a
// module around it, so that building it needs no Python headers.
#include <torch/library.h>

TORCH_LIBRARY(pcdet, m) {
  m.def("boxes_overlap_bev(Tensor boxes_a, Tensor boxes_b) -> Tensor");
  m.def("boxes_iou_bev(Tensor boxes_a, Tensor boxes_b) -> Tensor");
  m.def("boxes_iou3d(Tensor boxes_a, Tensor boxes_b) -> Tensor");
  m.def("paired_boxes_iou3d(Tensor boxes_a, Tensor boxes_b) -> Tensor");
  m.def("nms(Tensor boxes, Tensor scores, float thresh, bool rotated) -> Tensor");
  m.def("nms_counted(Tensor boxes, Tensor scores, float thresh, bool rotated) -> (Tensor, Tensor)");
  m.def("points_in_boxes_mask(Tensor points, Tensor boxes) -> Tensor");
  m.def("points_in_boxes_index(Tensor points, Tensor boxes) -> Tensor");
  m.def("furthest_point_sample(Tensor xyz, SymInt npoint) -> Tensor");
  m.def("ball_query(Tensor xyz, Tensor new_xyz, float radius, SymInt nsample) -> Tensor");
  m.def("three_nn(Tensor unknown, Tensor known) -> (Tensor, Tensor)");
  m.def("gather_points(Tensor features, Tensor idx) -> Tensor");
  m.def("gather_points_backward(Tensor grad, Tensor idx, SymInt num_points) -> Tensor");
  m.def("three_interpolate(Tensor features, Tensor idx, Tensor weight) -> Tensor");
  m.def("three_interpolate_backward(Tensor grad, Tensor idx, Tensor weight, SymInt num_points) -> Tensor");
  m.def("roipoint_pool3d(Tensor points, Tensor features, Tensor boxes, SymInt num_sampled_points) -> (Tensor, Tensor)");
  m.def("roiaware_assign(Tensor rois, Tensor points, int[] out_size, int most_points) -> (Tensor, Tensor)");
  m.def("roiaware_pool3d(Tensor features, Tensor voxel, Tensor count, bool use_max) -> (Tensor, Tensor)");
  m.def("roiaware_pool3d_backward(Tensor grad, Tensor voxel, Tensor count, Tensor argmax, bool use_max) -> Tensor");
  m.def(
      "voxelize(Tensor points, float[] voxel_size, float[] point_cloud_range, int max_points, int max_voxels)"
      " -> (Tensor, Tensor, Tensor)");
  m.def(
      "dynamic_voxelize(Tensor points, float[] voxel_size, float[] point_cloud_range, int batch_size, bool any_height)"
      " -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("group_rows(Tensor index, SymInt num_groups) -> (Tensor, Tensor)");
  m.def("scatter_sum(Tensor src, Tensor? order, Tensor offsets) -> Tensor");
  m.def("scatter_max(Tensor src, Tensor? order, Tensor offsets) -> (Tensor, Tensor)");
  m.def("scatter_max_backward(Tensor grad, Tensor argmax, SymInt num_rows) -> Tensor");
  m.def("expand_groups(Tensor values, Tensor? order, Tensor offsets, SymInt num_rows) -> Tensor");
  m.def("edge_index(Tensor idx, SymInt num_base) -> (Tensor, Tensor)");
  m.def("edge_transpose(Tensor idx, SymInt num_base) -> (Tensor, Tensor)");
  m.def("edge_gather(Tensor base, Tensor query, Tensor idx, Tensor? start, Tensor? edge, bool relu) -> Tensor");
  m.def(
      "edge_gather_backward(Tensor grad, Tensor base, Tensor query, Tensor idx, Tensor start, Tensor edge, bool relu)"
      " -> (Tensor, Tensor)");
  m.def("edge_argmax(Tensor base, Tensor idx) -> Tensor");
  m.def("edge_sum(Tensor base, Tensor query, Tensor idx, Tensor? start, Tensor? edge, bool relu) -> (Tensor, Tensor)");
  m.def(
      "edge_sum_backward(Tensor grad, Tensor base, Tensor query, Tensor idx, Tensor start, Tensor edge, bool relu)"
      " -> Tensor");
  m.def(
      "edge_moments(Tensor base, Tensor query, Tensor idx, Tensor? start, Tensor? edge)"
      " -> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "edge_distance(Tensor base, Tensor query, Tensor? other_base, Tensor? other_query, Tensor idx, Tensor? start,"
      " Tensor? edge, bool relu, bool other_relu) -> (Tensor, Tensor, Tensor)");
  m.def(
      "edge_distance_backward(Tensor weight, Tensor base, Tensor query, Tensor? other_base, Tensor? other_query,"
      " Tensor idx, Tensor start, Tensor edge, bool relu, bool other_relu, bool other_wanted) -> (Tensor, Tensor)");
  m.def("knn(Tensor query, Tensor base, int k, Tensor? query_frame=None, Tensor? base_frame=None) -> (Tensor, Tensor)");
}
