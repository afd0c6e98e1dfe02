// Squared differences between two sides' edges on the CPU, edges made and forgotten in registers.
#include <vector>

#include "edge_distance_host.h"
#include "row_jobs.h"

namespace pcdet::PCDET_BACKEND {

// For each row the sum over its partners of |d|^2, d = act(own + partner's) - act(other own + other partner's), and of
// d where the activation passes a gradient. Centres and base rows are alike to it: an edge is a sum of one of each.
// Without an other side d is the edge itself.
template <typename T, bool kTwoSides, bool kWeighted>
struct DistanceRows {
  Adjacency graph;
  int64_t channels;
  const T *own, *partner, *other_own, *other_partner;  // (rows, C), (partners, C), twice
  T floor, other_floor;
  const T* weight;         // (partners,): of every d; null unless kWeighted
  T *slope, *other_slope;  // (rows, C): sums of d and of -d; the other may be null
  T* distance;             // (rows,); null if kWeighted

  struct Sums {
    T *slope, *other_slope, *squares;
  };

  // One row as `walk` wants it.
  struct Row {
    const DistanceRows& job;
    Sums to;

    template <int n>
    PCDET_INLINE void add(int64_t row, const int64_t* partners) const {
      const T *z[n], *y[n];
      T w[n];
#pragma GCC unroll 4
      for (int e = 0; e < n; ++e) {
        z[e] = job.partner + partners[e] * job.channels;
        y[e] = kTwoSides ? job.other_partner + partners[e] * job.channels : nullptr;
        w[e] = kWeighted ? job.weight[partners[e]] : T(1);
      }
      const T *own = job.own + row * job.channels, *other_own = kTwoSides ? job.other_own + row * job.channels : own;
      const T floor = job.floor, other_floor = job.other_floor;
      T *slope = to.slope, *other_slope = to.other_slope, *squares = to.squares;
#pragma GCC ivdep
      for (int64_t c = 0; c < job.channels; ++c) {
        T s = slope[c], o = kTwoSides ? other_slope[c] : T(0), q = kWeighted ? T(0) : squares[c];
#pragma GCC unroll 4
        for (int e = 0; e < n; ++e) {
          const T a = own[c] + z[e][c];
          const T b = kTwoSides ? other_own[c] + y[e][c] : T(0);
          T d = kTwoSides ? raised_to(floor, a) - raised_to(other_floor, b) : raised_to(floor, a);
          if (!kWeighted) q += d * d;
          if (kWeighted) d *= w[e];
          s += a <= floor ? T(0) : d;
          if (kTwoSides) o -= b <= other_floor ? T(0) : d;
        }
        slope[c] = s;
        if (kTwoSides) other_slope[c] = o;
        if (!kWeighted) squares[c] = q;
      }
    }
  };

  PCDET_INLINE void rows(int64_t begin, int64_t end) const {
    std::vector<T> scratch(2 * channels);
    for (int64_t row = begin; row < end; ++row) {
      T* other = other_slope ? other_slope + row * channels : scratch.data() + channels;
      const Sums to{slope + row * channels, other, scratch.data()};
      std::fill_n(to.slope, channels, T(0));
      std::fill_n(to.other_slope, channels, T(0));
      std::fill_n(to.squares, channels, T(0));
      walk(Row{*this, to}, graph, row);
      if (kWeighted) continue;
      double sum = 0;
      for (int64_t c = 0; c < channels; ++c) sum += to.squares[c];
      distance[row] = static_cast<T>(sum);
    }
  }
};

PCDET_WIDE void run(const DistanceRows<float, false, false>& job, int64_t begin, int64_t end) { job.rows(begin, end); }
PCDET_WIDE void run(const DistanceRows<float, false, true>& job, int64_t begin, int64_t end) { job.rows(begin, end); }
PCDET_WIDE void run(const DistanceRows<float, true, false>& job, int64_t begin, int64_t end) { job.rows(begin, end); }
PCDET_WIDE void run(const DistanceRows<float, true, true>& job, int64_t begin, int64_t end) { job.rows(begin, end); }

struct CpuEdgeDistance {
  template <typename T, bool kTwoSides, bool kWeighted>
  using Rows = DistanceRows<T, kTwoSides, kWeighted>;

  template <typename T, bool kTwoSides, bool kWeighted>
  static void sum_distances(const DistanceRows<T, kTwoSides, kWeighted>& job) {
    run_all(job, job.graph, job.channels);
  }
};

TORCH_LIBRARY_IMPL(pcdet, CPU, m) { register_edge_distance<CpuEdgeDistance>(m); }

}  // namespace pcdet::PCDET_BACKEND
