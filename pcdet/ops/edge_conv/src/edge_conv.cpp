// The pieces of an edge convolution on the CPU, after the projection: an edge is act(base[j] + query[i]).
#include <vector>

#include "edge_conv_host.h"
#include "row_jobs.h"

namespace pcdet::PCDET_BACKEND {

// The edges themselves.
template <typename T>
struct GatherRows {
  Adjacency graph;
  int64_t channels;
  const T *base, *query;  // (M, C), (G, C)
  T floor;
  T* out;  // (G, K, C)

  PCDET_INLINE void rows(int64_t begin, int64_t end) const {
    for (int64_t row = begin; row < end; ++row) {
      const T* own = query + row * channels;
      for (int64_t at = graph.begin(row); at < graph.end(row); ++at) {
        const int64_t j = graph.partner(at);
        T* to = out + at * channels;
        if (j < 0) {
          std::fill_n(to, channels, T(0));
          continue;
        }
        const T* from = base + j * channels;
#pragma GCC ivdep
        for (int64_t c = 0; c < channels; ++c) to[c] = raised_to(floor, own[c] + from[c]);
      }
    }
  }
};

// From gradients of the edges to gradients of both sides; sums for the base rows into a table of the caller's.
template <typename T>
struct GatherBackwardRows {
  Adjacency graph;
  int64_t channels;
  const T *base, *query;
  T floor;
  const T* grad;              // (G, K, C)
  T *grad_base, *grad_query;  // (M, C) to add to, (G, C)

  PCDET_INLINE void rows(int64_t begin, int64_t end) const {
    for (int64_t row = begin; row < end; ++row) {
      const T* own = query + row * channels;
      T* own_grad = grad_query + row * channels;
      std::fill_n(own_grad, channels, T(0));
      for (int64_t at = graph.begin(row); at < graph.end(row); ++at) {
        const int64_t j = graph.partner(at);
        if (j < 0) continue;
        const T *other = base + j * channels, *from = grad + at * channels;
        T* to = grad_base + j * channels;
#pragma GCC ivdep
        for (int64_t c = 0; c < channels; ++c) {
          const T passed = own[c] + other[c] <= floor ? T(0) : from[c];
          to[c] += passed;
          own_grad[c] += passed;
        }
      }
    }
  }
};

// The first of the largest neighbours in each channel.
template <typename T>
struct ArgmaxRows {
  Adjacency graph;
  int64_t channels;
  const T* base;
  int64_t* out;  // (G, C), -1 without neighbours

  PCDET_INLINE void rows(int64_t begin, int64_t end) const {
    std::vector<T> largest(channels);
    std::vector<int32_t> place(channels);
    T* best = largest.data();
    int32_t* who = place.data();
    for (int64_t row = begin; row < end; ++row) {
      std::fill_n(who, channels, -1);
      bool first = true;
      for (int64_t at = graph.begin(row); at < graph.end(row); ++at) {
        const auto j = static_cast<int32_t>(graph.partner(at));
        if (j < 0) continue;
        const T* from = base + j * channels;
        if (first) {
          std::copy_n(from, channels, best);
          std::fill_n(who, channels, j);
          first = false;
          continue;
        }
#pragma GCC ivdep
        for (int64_t c = 0; c < channels; ++c) {
          const bool larger = !(from[c] <= best[c]) & (best[c] == best[c]);  // the first NaN wins
          best[c] = larger ? from[c] : best[c];
          who[c] = larger ? j : who[c];
        }
      }
      for (int64_t c = 0; c < channels; ++c) out[row * channels + c] = who[c];
    }
  }
};

// Per centre the sum of its edges, and of how many of them the activation passes a gradient.
template <typename T>
struct SumRows {
  Adjacency graph;
  int64_t channels;
  const T *base, *query;
  T floor;
  T *sum, *passing;  // (G, C)

  struct Row {
    const SumRows& job;
    template <int n>
    PCDET_INLINE void add(int64_t row, const int64_t* partners) const {
      const T* from[n];
#pragma GCC unroll 4
      for (int e = 0; e < n; ++e) from[e] = job.base + partners[e] * job.channels;
      const T* own = job.query + row * job.channels;
      const T floor = job.floor;
      T *sum = job.sum + row * job.channels, *passing = job.passing + row * job.channels;
#pragma GCC ivdep
      for (int64_t c = 0; c < job.channels; ++c) {
        T s = sum[c], p = passing[c];
#pragma GCC unroll 4
        for (int e = 0; e < n; ++e) {
          const T a = own[c] + from[e][c];
          s += raised_to(floor, a);
          p += a <= floor ? T(0) : T(1);
        }
        sum[c] = s;
        passing[c] = p;
      }
    }
  };

  PCDET_INLINE void rows(int64_t begin, int64_t end) const {
    std::fill(sum + begin * channels, sum + end * channels, T(0));
    std::fill(passing + begin * channels, passing + end * channels, T(0));
    for (int64_t row = begin; row < end; ++row) walk(Row{*this}, graph, row);
  }
};

// Per base row the sum of its centres' gradients where the activation passes one.
template <typename T>
struct SumBackwardRows {
  Adjacency graph;
  int64_t channels;
  const T *base, *query, *grad;  // (M, C), (G, C), (G, C)
  T floor;
  T* out;  // (M, C)

  struct Row {
    const SumBackwardRows& job;
    template <int n>
    PCDET_INLINE void add(int64_t row, const int64_t* partners) const {
      const T *other[n], *from[n];
#pragma GCC unroll 4
      for (int e = 0; e < n; ++e) {
        other[e] = job.query + partners[e] * job.channels;
        from[e] = job.grad + partners[e] * job.channels;
      }
      const T* own = job.base + row * job.channels;
      const T floor = job.floor;
      T* out = job.out + row * job.channels;
#pragma GCC ivdep
      for (int64_t c = 0; c < job.channels; ++c) {
        T s = out[c];
#pragma GCC unroll 4
        for (int e = 0; e < n; ++e) s += own[c] + other[e][c] <= floor ? T(0) : from[e][c];
        out[c] = s;
      }
    }
  };

  PCDET_INLINE void rows(int64_t begin, int64_t end) const {
    std::fill(out + begin * channels, out + end * channels, T(0));
    for (int64_t row = begin; row < end; ++row) walk(Row{*this}, graph, row);
  }
};

// Per centre the sum of its edges, and per block of centres the sum of squared deviations from each centre's own mean.
// Both are counted from a centre's first edge, so that nothing large cancels.
template <typename T>
struct MomentRows {
  Adjacency graph;
  int64_t channels;
  const T *base, *query;
  T* sum;           // (G, C)
  int32_t* counts;  // (G,)
  double* squares;  // (C,) of this block

  struct Row {
    const MomentRows& job;
    const T* first;
    T *sum, *squares;
    template <int n>
    PCDET_INLINE void add(int64_t, const int64_t* partners) const {
      const T* from[n];
#pragma GCC unroll 4
      for (int e = 0; e < n; ++e) from[e] = job.base + partners[e] * job.channels;
      const T* origin = first;
      T *to = sum, *square = squares;
#pragma GCC ivdep
      for (int64_t c = 0; c < job.channels; ++c) {
        T s = to[c], q = square[c];
#pragma GCC unroll 4
        for (int e = 0; e < n; ++e) {
          const T d = from[e][c] - origin[c];
          s += d;
          q += d * d;
        }
        to[c] = s;
        square[c] = q;
      }
    }
  };

  PCDET_INLINE void rows(int64_t begin, int64_t end) const {
    std::vector<T> scratch(channels);
    for (int64_t row = begin; row < end; ++row) {
      T* to = sum + row * channels;
      std::fill_n(to, channels, T(0));
      std::fill_n(scratch.data(), channels, T(0));
      int32_t count = 0;
      int64_t first = -1;
      for (int64_t at = graph.end(row) - 1; at >= graph.begin(row); --at) {
        const int64_t j = graph.partner(at);
        if (j < 0) continue;
        ++count;
        first = j;
      }
      counts[row] = count;
      if (count == 0) continue;
      const T *origin = base + first * channels, *own = query + row * channels, *square = scratch.data();
      walk(Row{*this, origin, to, scratch.data()}, graph, row);
      const T n = static_cast<T>(count);
      for (int64_t c = 0; c < channels; ++c) {
        squares[c] += static_cast<double>(square[c] - to[c] * to[c] / n);
        to[c] += n * (origin[c] + own[c]);
      }
    }
  }
};

PCDET_WIDE void run(const GatherRows<float>& job, int64_t begin, int64_t end) { job.rows(begin, end); }
PCDET_WIDE void run(const GatherBackwardRows<float>& job, int64_t begin, int64_t end) { job.rows(begin, end); }
PCDET_WIDE void run(const ArgmaxRows<float>& job, int64_t begin, int64_t end) { job.rows(begin, end); }
PCDET_WIDE void run(const SumRows<float>& job, int64_t begin, int64_t end) { job.rows(begin, end); }
PCDET_WIDE void run(const SumBackwardRows<float>& job, int64_t begin, int64_t end) { job.rows(begin, end); }
PCDET_WIDE void run(const MomentRows<float>& job, int64_t begin, int64_t end) { job.rows(begin, end); }

struct CpuEdgeConv {
  template <typename T>
  static void gather_edges(const Adjacency& graph, int64_t channels, const T* base, const T* query, bool relu, T* out) {
    run_all(GatherRows<T>{graph, channels, base, query, floor_of<T>(relu), out}, graph, channels);
  }

  // Parts of the centres add to tables of their own, which are then added up: no two threads write to one row.
  template <typename T>
  static void gather_edges_backward(const Adjacency& graph, const Adjacency&, int64_t channels, const T* base,
                                    const T* query, const T* grad, bool relu, T* grad_base, T* grad_query) {
    const int64_t size = graph.partners * channels, work = graph.edges * channels;
    constexpr int64_t kWorkPerPart = RowBlocks::kBlockWork * RowBlocks::kBlocksPerThread;
    const int64_t parts = std::clamp<int64_t>(work / kWorkPerPart, 1, std::min(at::get_num_threads(), 8));
    std::vector<T> tables((parts - 1) * size, T(0));
    at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) {
        T* table = part == 0 ? grad_base : tables.data() + (part - 1) * size;
        run(GatherBackwardRows<T>{graph, channels, base, query, floor_of<T>(relu), grad, table, grad_query},
            graph.rows * part / parts, graph.rows * (part + 1) / parts);
      }
    });
    for (int64_t part = 1; part < parts; ++part)
      for (int64_t n = 0; n < size; ++n) grad_base[n] += tables[(part - 1) * size + n];
  }

  template <typename T>
  static void largest_neighbours(const Adjacency& graph, int64_t channels, const T* base, int64_t* out) {
    run_all(ArgmaxRows<T>{graph, channels, base, out}, graph, channels);
  }

  template <typename T>
  static void sum_edges(const Adjacency& graph, int64_t channels, const T* base, const T* query, bool relu, T* sum,
                        T* passing) {
    run_all(SumRows<T>{graph, channels, base, query, floor_of<T>(relu), sum, passing}, graph, channels);
  }

  template <typename T>
  static void sum_edges_backward(const Adjacency& graph, int64_t channels, const T* base, const T* query, const T* grad,
                                 bool relu, T* out) {
    run_all(SumBackwardRows<T>{graph, channels, base, query, grad, floor_of<T>(relu), out}, graph, channels);
  }

  // What lies between the centres' own means and the mean of all is added to what lies within.
  template <typename T>
  static void edge_statistics(const Adjacency& graph, int64_t channels, const T* base, const T* query, T* sum,
                              int32_t* counts, T* mean, T* variance) {
    const RowBlocks blocks(graph, channels);
    std::vector<double> squares(blocks.count * channels, 0.0);
    blocks.for_each_block([&](int64_t block, int64_t begin, int64_t end) {
      run(MomentRows<T>{graph, channels, base, query, sum, counts, squares.data() + block * channels}, begin, end);
    });
    double total = 0;
    for (int64_t row = 0; row < graph.rows; ++row) total += static_cast<double>(counts[row]);
    if (total == 0) return;

    std::vector<double> centre(channels, 0.0), spread(channels, 0.0);
    for (int64_t row = 0; row < graph.rows; ++row)
      for (int64_t c = 0; c < channels; ++c) centre[c] += static_cast<double>(sum[row * channels + c]);
    for (double& c : centre) c /= total;
    for (int64_t block = 0; block < blocks.count; ++block)
      for (int64_t c = 0; c < channels; ++c) spread[c] += squares[block * channels + c];
    for (int64_t row = 0; row < graph.rows; ++row) {
      if (counts[row] == 0) continue;
      const double n = static_cast<double>(counts[row]), inverse = 1 / n;
      for (int64_t c = 0; c < channels; ++c) {
        const double away = static_cast<double>(sum[row * channels + c]) * inverse - centre[c];
        spread[c] += n * away * away;
      }
    }
    for (int64_t c = 0; c < channels; ++c) {
      mean[c] = static_cast<T>(centre[c]);
      variance[c] = static_cast<T>(std::max(spread[c] / total, 0.0));
    }
  }
};

TORCH_LIBRARY_IMPL(pcdet, CPU, m) { register_edge_conv<CpuEdgeConv>(m); }

}  // namespace pcdet::PCDET_BACKEND
