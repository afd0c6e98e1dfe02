// The pieces of an edge convolution on the GPU, after the projection: an edge is act(base[j] + query[i]).
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

// The sum of a value of every thread of the block, in all of them.
__device__ inline double block_sum(double value) {
  __shared__ double parts[kThreads];
  __syncthreads();
  parts[threadIdx.x] = value;
  __syncthreads();
  for (int step = kThreads / 2; step > 0; step /= 2) {
    if (threadIdx.x < step) parts[threadIdx.x] += parts[threadIdx.x + step];
    __syncthreads();
  }
  return parts[0];
}

// One block a channel: what lies between the centres' means and the mean of all is added to what lies within.
template <typename T>
__global__ void statistics_kernel(int64_t rows, int64_t channels, const T* sums, const T* squares,
                                  const int32_t* counts, T* mean, T* variance) {
  const int64_t c = blockIdx.x;
  double sum = 0, count = 0, spread = 0;
  for (int64_t i = threadIdx.x; i < rows; i += kThreads) {
    sum += static_cast<double>(sums[i * channels + c]);
    count += static_cast<double>(counts[i]);
  }
  count = block_sum(count);
  if (count == 0) return;
  const double centre = block_sum(sum) / count;
  for (int64_t i = threadIdx.x; i < rows; i += kThreads) {
    if (counts[i] == 0) continue;
    const double n = static_cast<double>(counts[i]);
    const double away = static_cast<double>(sums[i * channels + c]) / n - centre;
    spread += static_cast<double>(squares[i * channels + c]) + n * away * away;
  }
  spread = block_sum(spread);
  if (threadIdx.x == 0) {
    mean[c] = static_cast<T>(centre);
    variance[c] = static_cast<T>(spread < 0 ? 0 : spread / count);
  }
}

template <typename T>
void gather_edges(const Adjacency& graph, int64_t channels, const T* base, const T* query, bool relu, T* out) {
  const GatherEdge<T> gather{graph.list, graph.k, graph.partners, channels, base, query, floor_of<T>(relu), out};
  for_each(graph.rows * channels, SplitIndex<GatherEdge<T>>{channels, gather});
}

template <typename T>
void gather_edges_backward(const Adjacency& neighbours, const Adjacency& centres, int64_t channels, const T* base,
                           const T* query, const T* grad, bool relu, T* grad_base, T* grad_query) {
  const T floor = floor_of<T>(relu);
  using Term = GradientTerm<T, true>;
  sum_base_rows(centres, channels, Term{{}, channels, base, query, grad, floor, grad_base});
  sum_rows(neighbours, channels, Term{{}, channels, query, base, grad, floor, grad_query});
}

template <typename T>
void largest_neighbours(const Adjacency& graph, int64_t channels, const T* base, int64_t* out) {
  sum_rows(graph, channels, ArgmaxTerm<T>{{}, channels, base, out});
}

template <typename T>
void sum_edges(const Adjacency& graph, int64_t channels, const T* base, const T* query, bool relu, T* sum, T* passing) {
  sum_rows(graph, channels, SumTerm<T>{{}, channels, base, query, floor_of<T>(relu), sum, passing});
}

template <typename T>
void sum_edges_backward(const Adjacency& graph, int64_t channels, const T* base, const T* query, const T* grad,
                        bool relu, T* out) {
  using Term = GradientTerm<T, false>;
  sum_base_rows(graph, channels, Term{{}, channels, base, query, grad, floor_of<T>(relu), out});
}

template <typename T>
void edge_statistics(const Adjacency& graph, int64_t channels, const T* base, const T* query, T* sum, int32_t* counts,
                     T* mean, T* variance) {
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const auto options = at::TensorOptions().device(at::kCUDA, stream.device_index());
  at::Tensor squares = at::empty({graph.rows, channels}, options.dtype(c10::CppTypeToScalarType<T>::value));
  sum_rows(graph, channels, MomentTerm<T>{{}, channels, base, query, sum, squares.mutable_data_ptr<T>(), counts});
  statistics_kernel<T><<<static_cast<unsigned>(channels), kThreads, 0, stream>>>(
      graph.rows, channels, sum, squares.const_data_ptr<T>(), counts, mean, variance);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace pcdet::PCDET_BACKEND

#include "edge_conv_host.h"
