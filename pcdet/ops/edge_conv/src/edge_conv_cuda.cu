// The pieces of an edge convolution on the GPU, after the projection: an edge is act(base[j] + query[i]).
#include "edge_conv_host.h"
#include "row_sums_cuda.cuh"

namespace pcdet::PCDET_BACKEND {

// What most terms do not do.
template <typename T>
struct PlainTerm {
  __device__ T nothing() const { return T(0); }
  __device__ void finish_row(int64_t, T) const {}
};

template <typename T>
struct GatherEdge {
  const int32_t* neighbours;  // (G, K)
  int64_t k, num_base, channels;
  const T *base, *query;
  T floor;
  T* out;  // (G, K, C)
  __device__ void operator()(int64_t i, int64_t c) const {
    const T own = query[i * channels + c];
#pragma unroll 4
    for (int64_t e = i * k; e < (i + 1) * k; ++e) {
      const int64_t j = neighbours[e];
      const bool there = static_cast<uint64_t>(j) < static_cast<uint64_t>(num_base);
      out[e * channels + c] = there ? raised_to(floor, own + base[j * channels + c]) : T(0);
    }
  }
};

// One index a thread for the (row, channel) pairs: rows are too short for a block each.
template <typename F>
struct SplitIndex {
  int64_t channels;
  F f;
  __device__ void operator()(int64_t n) const { f(n / channels, n % channels); }
};

// Sums of gradients where the activation passes one: `own` is the rows of the side that gets them, `partner` the
// other's.
template <typename T, bool kPerEdge>
struct GradientTerm : PlainTerm<T> {
  int64_t channels;
  const T *own, *partner, *grad;  // (rows, C), (partners, C), and (G, K, C) if kPerEdge, else (partners, C)
  T floor;
  T* out;  // (rows, C)
  struct Sum {
    T own, total;
  };
  __device__ Sum start(int64_t row, int64_t c) const { return {own[row * channels + c], T(0)}; }
  __device__ void add(Sum& sum, int64_t p, int64_t edge, int64_t c) const {
    const int64_t from = kPerEdge ? edge : p;
    sum.total += sum.own + partner[p * channels + c] <= floor ? T(0) : grad[from * channels + c];
  }
  __device__ T finish(const Sum& sum, int64_t row, int64_t c) const {
    out[row * channels + c] = sum.total;
    return T(0);
  }
  __device__ void flush(const Sum& sum, int64_t row, int64_t c) const {
    atomic_add(out + row * channels + c, sum.total);
  }
};

template <typename T>
struct ArgmaxTerm : PlainTerm<T> {
  int64_t channels;
  const T* base;
  int64_t* out;  // (G, C)
  struct Sum {
    T best;
    int64_t who;
  };
  __device__ Sum start(int64_t, int64_t) const { return {T(0), -1}; }
  __device__ void add(Sum& sum, int64_t p, int64_t, int64_t c) const {
    const T value = base[p * channels + c];
    const bool larger = !(value <= sum.best) & (sum.best == sum.best);  // the first NaN wins
    if (sum.who < 0 || larger) sum = {value, p};
  }
  __device__ T finish(const Sum& sum, int64_t row, int64_t c) const {
    out[row * channels + c] = sum.who;
    return T(0);
  }
};

template <typename T>
struct SumTerm : PlainTerm<T> {
  int64_t channels;
  const T *base, *query;
  T floor;
  T *out, *passing;  // (G, C)
  struct Sum {
    T own, total, passing;
  };
  __device__ Sum start(int64_t row, int64_t c) const { return {query[row * channels + c], T(0), T(0)}; }
  __device__ void add(Sum& sum, int64_t p, int64_t, int64_t c) const {
    const T a = sum.own + base[p * channels + c];
    sum.total += raised_to(floor, a);
    sum.passing += a <= floor ? T(0) : T(1);
  }
  __device__ T finish(const Sum& sum, int64_t row, int64_t c) const {
    out[row * channels + c] = sum.total;
    passing[row * channels + c] = sum.passing;
    return T(0);
  }
};

// Sums and squared deviations of each centre's edges, both counted from its first edge: nothing large cancels.
template <typename T>
struct MomentTerm : PlainTerm<T> {
  int64_t channels;
  const T *base, *query;
  T *out, *squares;  // (G, C)
  int32_t* counts;   // (G,)
  struct Sum {
    T own, first, total, squares;
    int32_t count;
  };
  __device__ Sum start(int64_t row, int64_t c) const { return {query[row * channels + c], T(0), T(0), T(0), 0}; }
  __device__ void add(Sum& sum, int64_t p, int64_t, int64_t c) const {
    const T value = base[p * channels + c];
    if (sum.count++ == 0) sum.first = value;
    const T d = value - sum.first;
    sum.total += d;
    sum.squares += d * d;
  }
  __device__ T finish(const Sum& sum, int64_t row, int64_t c) const {
    const T n = static_cast<T>(sum.count);
    // Without edges nothing of the centre's own row may stay, which may be NaN.
    out[row * channels + c] = sum.count ? sum.total + n * (sum.first + sum.own) : T(0);
    squares[row * channels + c] = sum.count ? sum.squares - sum.total * sum.total / n : T(0);
    if (c == 0) counts[row] = sum.count;
    return T(0);
  }
};

// The statistics of all edges from those of every centre, in parts: a block sums a part of the centres for 32 channels.
// What lies between the centres' means and the mean of all is added to what lies within.
template <typename T>
struct CentreStatistics {
  int64_t rows, channels;
  const T *sums, *squares;  // (G, C): a centre's edges, and their squared deviations from its own mean
  const int32_t* counts;    // (G,)
  int64_t parts;
  double *sum, *count, *spread;  // (parts, C)

  // The total of a table of parts, always in the same order.
  __device__ double total(const double* of_parts, int64_t c) const {
    double all = 0;
    for (int64_t part = 0; part < parts; ++part) all += of_parts[part * channels + c];
    return all;
  }
};

// The sum of value(row) over the block's part of the rows, for the lane's channel, in every warp. Lanes are channels,
// so that rows are read side by side, and warps take turns. To be called by all threads of the block, and once a kernel
// for each F, since nothing waits for the readers of an earlier call's sums.
template <typename F>
__device__ double sum_of_part(int64_t rows, const F& value) {
  __shared__ double of_warps[kWarpsPerBlock][kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t begin = rows * blockIdx.x / gridDim.x, end = rows * (blockIdx.x + 1) / gridDim.x;
  double sum = 0;
  for (int64_t row = begin + warp; row < end; row += kWarpsPerBlock) sum += value(row);
  of_warps[warp][lane] = sum;
  __syncthreads();
  double all = 0;
  for (int w = 0; w < kWarpsPerBlock; ++w) all += of_warps[w][lane];
  return all;
}

// Grid: (parts, blocks of 32 channels); as the next one.
template <typename T>
__global__ void sum_centres_kernel(CentreStatistics<T> s) {
  const int64_t c = blockIdx.y * static_cast<int64_t>(kWarp) + threadIdx.x % kWarp;
  const bool there = c < s.channels;
  const double sum =
      sum_of_part(s.rows, [&](int64_t row) { return there ? static_cast<double>(s.sums[row * s.channels + c]) : 0.0; });
  const double count = sum_of_part(s.rows, [&](int64_t row) { return static_cast<double>(s.counts[row]); });
  if (!there || threadIdx.x >= kWarp) return;
  s.sum[blockIdx.x * s.channels + c] = sum;
  s.count[blockIdx.x * s.channels + c] = count;
}

template <typename T>
__global__ void spread_centres_kernel(CentreStatistics<T> s) {
  const int64_t c = blockIdx.y * static_cast<int64_t>(kWarp) + threadIdx.x % kWarp;
  const bool there = c < s.channels;
  const double centre = there ? s.total(s.sum, c) / s.total(s.count, c) : 0;  // not read if there are no edges
  const double spread = sum_of_part(s.rows, [&](int64_t row) {
    if (!there || s.counts[row] == 0) return 0.0;
    const double n = static_cast<double>(s.counts[row]);
    const double away = static_cast<double>(s.sums[row * s.channels + c]) / n - centre;
    return static_cast<double>(s.squares[row * s.channels + c]) + n * away * away;
  });
  if (there && threadIdx.x < kWarp) s.spread[blockIdx.x * s.channels + c] = spread;
}

// Leaves a channel as it is if there are no edges.
template <typename T>
struct FinishStatistics {
  CentreStatistics<T> s;
  T *mean, *variance;  // (C,)
  __device__ void operator()(int64_t c) const {
    const double count = s.total(s.count, c), spread = s.total(s.spread, c);
    if (count == 0) return;
    mean[c] = static_cast<T>(s.total(s.sum, c) / count);
    variance[c] = static_cast<T>(spread < 0 ? 0 : spread / count);
  }
};

template <typename T>
void finish_statistics(CentreStatistics<T> s, T* mean, T* variance) {
  constexpr int64_t kRowsPerPart = 64, kMostParts = 128;
  s.parts = std::clamp<int64_t>(s.rows / kRowsPerPart, 1, kMostParts);
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const auto options = at::TensorOptions().device(at::kCUDA, stream.device_index()).dtype(at::kDouble);
  at::Tensor of_parts = at::empty({3, s.parts, s.channels}, options);
  s.sum = of_parts.mutable_data_ptr<double>();
  s.count = s.sum + s.parts * s.channels;
  s.spread = s.count + s.parts * s.channels;
  const dim3 grid(static_cast<unsigned>(s.parts), static_cast<unsigned>((s.channels + kWarp - 1) / kWarp));
  sum_centres_kernel<T><<<grid, kThreads, 0, stream>>>(s);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  spread_centres_kernel<T><<<grid, kThreads, 0, stream>>>(s);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  for_each(s.channels, FinishStatistics<T>{s, mean, variance});
}

struct CudaEdgeConv {
  template <typename T>
  static void gather_edges(const Adjacency& graph, int64_t channels, const T* base, const T* query, bool relu, T* out) {
    const GatherEdge<T> gather{graph.list, graph.k, graph.partners, channels, base, query, floor_of<T>(relu), out};
    for_each(graph.rows * channels, SplitIndex<GatherEdge<T>>{channels, gather});
  }

  template <typename T>
  static void gather_edges_backward(const Adjacency& neighbours, const Adjacency& centres, int64_t channels,
                                    const T* base, const T* query, const T* grad, bool relu, T* grad_base,
                                    T* grad_query) {
    const T floor = floor_of<T>(relu);
    using Term = GradientTerm<T, true>;
    sum_base_rows(centres, channels, Term{{}, channels, base, query, grad, floor, grad_base});
    sum_rows(neighbours, channels, Term{{}, channels, query, base, grad, floor, grad_query});
  }

  template <typename T>
  static void largest_neighbours(const Adjacency& graph, int64_t channels, const T* base, int64_t* out) {
    sum_rows(graph, channels, ArgmaxTerm<T>{{}, channels, base, out});
  }

  template <typename T>
  static void sum_edges(const Adjacency& graph, int64_t channels, const T* base, const T* query, bool relu, T* sum,
                        T* passing) {
    sum_rows(graph, channels, SumTerm<T>{{}, channels, base, query, floor_of<T>(relu), sum, passing});
  }

  template <typename T>
  static void sum_edges_backward(const Adjacency& graph, int64_t channels, const T* base, const T* query, const T* grad,
                                 bool relu, T* out) {
    using Term = GradientTerm<T, false>;
    sum_base_rows(graph, channels, Term{{}, channels, base, query, grad, floor_of<T>(relu), out});
  }

  template <typename T>
  static void edge_statistics(const Adjacency& graph, int64_t channels, const T* base, const T* query, T* sum,
                              int32_t* counts, T* mean, T* variance) {
    const auto stream = c10::cuda::getCurrentCUDAStream();
    const auto options = at::TensorOptions().device(at::kCUDA, stream.device_index());
    at::Tensor squares = at::empty({graph.rows, channels}, options.dtype(c10::CppTypeToScalarType<T>::value));
    sum_rows(graph, channels, MomentTerm<T>{{}, channels, base, query, sum, squares.mutable_data_ptr<T>(), counts});
    finish_statistics<T>({graph.rows, channels, sum, squares.const_data_ptr<T>(), counts}, mean, variance);
  }
};

TORCH_LIBRARY_IMPL(pcdet, CUDA, m) { register_edge_conv<CudaEdgeConv>(m); }

}  // namespace pcdet::PCDET_BACKEND
