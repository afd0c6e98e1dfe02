#include "points_in_boxes.cpp"  // same source, compiled by nvcc for CUDA
