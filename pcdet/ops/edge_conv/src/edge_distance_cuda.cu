// Squared differences between two sides' edges on the GPU, edges made and forgotten in registers.
#include "edge_distance_host.h"
#include "row_sums_cuda.cuh"

namespace pcdet::PCDET_BACKEND {

// As the struct of this name in edge_distance.cpp, for one row and channel.
template <typename T, bool kTwoSides, bool kWeighted>
struct DistanceRows {
  Adjacency graph;
  int64_t channels;
  const T *own, *partner, *other_own, *other_partner;  // (rows, C), (partners, C), twice
  T floor, other_floor;
  const T* weight;         // (partners,); null unless kWeighted
  T *slope, *other_slope;  // (rows, C); the other may be null
  T* distance;             // (rows,); null if kWeighted

  struct Sum {
    T own, other_own, slope, other_slope, squares;
  };

  __device__ T nothing() const { return T(0); }
  __device__ Sum start(int64_t row, int64_t c) const {
    return {own[row * channels + c], kTwoSides ? other_own[row * channels + c] : T(0), T(0), T(0), T(0)};
  }
  __device__ void add(Sum& sum, int64_t p, int64_t, int64_t c) const {
    const T a = sum.own + partner[p * channels + c];
    const T b = kTwoSides ? sum.other_own + other_partner[p * channels + c] : T(0);
    T d = kTwoSides ? raised_to(floor, a) - raised_to(other_floor, b) : raised_to(floor, a);
    if (!kWeighted) sum.squares += d * d;
    if (kWeighted) d *= weight[p];
    sum.slope += a <= floor ? T(0) : d;
    if (kTwoSides) sum.other_slope -= b <= other_floor ? T(0) : d;
  }
  __device__ T finish(const Sum& sum, int64_t row, int64_t c) const {
    slope[row * channels + c] = sum.slope;
    if (kTwoSides && other_slope) other_slope[row * channels + c] = sum.other_slope;
    return sum.squares;
  }
  __device__ void finish_row(int64_t row, T total) const {
    if (!kWeighted) distance[row] = total;
  }
  __device__ void flush(const Sum& sum, int64_t row, int64_t c) const {
    atomic_add(slope + row * channels + c, sum.slope);
    if (kTwoSides && other_slope) atomic_add(other_slope + row * channels + c, sum.other_slope);
  }
};

struct CudaEdgeDistance {
  template <typename T, bool kTwoSides, bool kWeighted>
  using Rows = DistanceRows<T, kTwoSides, kWeighted>;

  template <typename T, bool kTwoSides, bool kWeighted>
  static void sum_distances(const DistanceRows<T, kTwoSides, kWeighted>& job) {
    if constexpr (kWeighted) {
      sum_base_rows(job.graph, job.channels, job);
    } else {
      sum_rows(job.graph, job.channels, job);
    }
  }
};

TORCH_LIBRARY_IMPL(pcdet, CUDA, m) { register_edge_distance<CudaEdgeDistance>(m); }

}  // namespace pcdet::PCDET_BACKEND
