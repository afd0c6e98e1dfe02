#include "box_overlaps.cpp"  // same source, compiled by nvcc for CUDA
