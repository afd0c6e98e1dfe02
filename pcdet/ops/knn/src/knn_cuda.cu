// K nearest neighbours on the GPU. Each warp computes squared distances of a few queries to a tile of base rows in
// registers and keeps the candidates in shared memory, so that neither the matrix of distances nor a list longer than
// 4 k leaves the chip. Distances are sums of squared differences: exact to rounding, and nothing needs a second look.
//
// Few queries cannot fill the card, so the base rows are then split among blocks and the parts' lists merged.
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>

#include "block_memory.h"
#include "knn_checks.h"

namespace pcdet::PCDET_BACKEND {

constexpr uint64_t kEmpty = ~uint64_t(0);

// A non-negative distance and a row as one number in the order of (distance, row).
__device__ inline uint64_t key_of(float distance2, int64_t row) {
  return static_cast<uint64_t>(__float_as_uint(distance2)) << 32 | static_cast<uint32_t>(row);
}

// Sorts keys[0, count) by one warp, filling up with kEmpty to `length`, a power of two. A function of its own, not to
// be copied into every place that may need it: those are many, unrolled, and it runs seldom.
__device__ __noinline__ void sort_by_warp(uint64_t* keys, int count, int length) {
  const int lane = threadIdx.x % kLanes;
  for (int i = count + lane; i < length; i += kLanes) keys[i] = kEmpty;
  __syncwarp();                                  // also for the keys that the lanes have written before
  for (int size = 2; size <= length; size *= 2)  // bitonic
    for (int stride = size / 2; stride > 0; stride /= 2) {
      for (int pair = lane; pair < length / 2; pair += kLanes) {
        const int i = 2 * pair - (pair & (stride - 1)), j = i + stride;
        const uint64_t a = keys[i], b = keys[j];
        if ((a > b) == ((i & size) == 0)) {
          keys[i] = b;
          keys[j] = a;
        }
      }
      __syncwarp();
    }
}

// The k smallest keys of a stream, held by one warp in `length` (a power of two, at least k + 32) words of shared
// memory.
struct WarpSelection {
  uint64_t* keys;
  int k, length;
  int count;       // keys held
  uint64_t bound;  // only smaller keys can still enter

  __device__ void start() {
    count = 0;
    bound = kEmpty;
  }

  // Every lane offers one key; kEmpty is none. Other lanes see it after the next cut_back.
  __device__ void offer(uint64_t key) {
    const unsigned takers = __ballot_sync(kAllLanes, key < bound);
    if (takers == 0) return;
    const int lane = threadIdx.x % kLanes;
    if (key < bound) keys[count + __popc(takers & ((1u << lane) - 1))] = key;
    count += __popc(takers);
    if (count > length - kLanes) cut_back();
  }

  // Sorts the keys; of more than k the rest is dropped.
  __device__ void cut_back() {
    sort_by_warp(keys, count, length);
    if (count < k) return;
    count = k;
    bound = keys[k - 1];
  }
};

// lower[q], upper[q]: the base rows of the query's frame.
struct RangeOfQuery {
  const int64_t *query_frame, *base_frame;  // (Q,), (M,) ascending
  int64_t num_base;
  int64_t *lower, *upper;  // (Q,)
  __device__ int64_t first_not_below(int64_t frame) const {
    int64_t begin = 0, end = num_base;
    while (begin < end) {
      const int64_t middle = begin + (end - begin) / 2;
      if (base_frame[middle] < frame)
        begin = middle + 1;
      else
        end = middle;
    }
    return begin;
  }
  __device__ void operator()(int64_t q) const {
    const int64_t frame = query_frame[q];
    lower[q] = first_not_below(frame);
    upper[q] = frame == std::numeric_limits<int64_t>::max() ? num_base : first_not_below(frame + 1);
  }
};

struct SearchArgs {
  const float *query, *base;     // (Q, C), (M, C)
  const int64_t *lower, *upper;  // (Q,), or null: all base rows
  int64_t num_queries, num_base, channels;
  int k, length;
  int splits;       // this and what follows is `search`'s to say
  uint64_t* found;  // (splits, Q, k) sorted keys, kEmpty at the end
};

// Four channels of a query, read at once.
struct alignas(16) FourChannels {
  float at[4];
};

// Grid: (blocks of kWarps * kPerWarp queries, splits).
template <int kPerWarp>
__global__ void __launch_bounds__(kWarps* kLanes) search_kernel(SearchArgs args) {
  constexpr int kBlockQueries = kWarps * kPerWarp;
  __shared__ FourChannels query_tile[kBlockQueries][kQueryChannels / 4];
  __shared__ float base_tile[kTileChannels][kTileRows + 1];
  static_assert(sizeof(query_tile) + sizeof(base_tile) == tile_bytes(kPerWarp));
  extern __shared__ uint64_t lists[];  // (kBlockQueries, length)
  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;
  const int64_t first_query = blockIdx.x * int64_t(kBlockQueries);
  const int64_t last_query = min(first_query + kBlockQueries, args.num_queries) - 1;

  // Frames ascend, so the block's rows run from its first query's to its last one's.
  const int64_t rows_begin = args.lower ? args.lower[first_query] : 0;
  const int64_t rows_end = args.upper ? args.upper[last_query] : args.num_base;
  const int64_t tiles = (rows_end - rows_begin + kTileRows - 1) / kTileRows;
  const int64_t tiles_of_split = (tiles + args.splits - 1) / args.splits;
  const int64_t begin = rows_begin + blockIdx.y * tiles_of_split * kTileRows;
  const int64_t end = min(begin + tiles_of_split * kTileRows, rows_end);

  WarpSelection selection[kPerWarp];
  int64_t lower[kPerWarp], upper[kPerWarp];
#pragma unroll
  for (int i = 0; i < kPerWarp; ++i) {
    const int64_t q = first_query + warp * kPerWarp + i;
    selection[i] = {lists + (warp * kPerWarp + i) * args.length, args.k, args.length};
    selection[i].start();
    lower[i] = q > last_query ? 0 : (args.lower ? args.lower[q] : 0);
    upper[i] = q > last_query ? 0 : (args.upper ? args.upper[q] : args.num_base);
  }

  const bool queries_stay = args.channels <= kQueryChannels;
  for (int64_t first_row = begin; first_row < end; first_row += kTileRows) {
    float distance2[kPerWarp][kRowsPerLane] = {};
    for (int64_t first_channel = 0; first_channel < args.channels; first_channel += kTileChannels) {
      const int64_t channel = first_channel + lane;
      const int place = queries_stay ? static_cast<int>(first_channel) : 0;  // of these channels in the query tile
      __syncthreads();
      if (!queries_stay || first_row == begin)
        for (int q = warp; q < kBlockQueries; q += kWarps)
          query_tile[q][(place + lane) / 4].at[lane % 4] = channel < args.channels && first_query + q <= last_query
                                                               ? args.query[(first_query + q) * args.channels + channel]
                                                               : 0.0f;
      for (int r = warp; r < kTileRows; r += kWarps)
        base_tile[lane][r] = channel < args.channels && first_row + r < end
                                 ? args.base[(first_row + r) * args.channels + channel]
                                 : 0.0f;
      __syncthreads();
#pragma unroll 2
      for (int c = 0; c < kTileChannels; c += 4) {
        FourChannels x[kPerWarp];
#pragma unroll
        for (int i = 0; i < kPerWarp; ++i) x[i] = query_tile[warp * kPerWarp + i][(place + c) / 4];
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          float b[kRowsPerLane];
#pragma unroll
          for (int r = 0; r < kRowsPerLane; ++r) b[r] = base_tile[c + n][r * kLanes + lane];
#pragma unroll
          for (int i = 0; i < kPerWarp; ++i)
#pragma unroll
            for (int r = 0; r < kRowsPerLane; ++r) {
              const float difference = x[i].at[n] - b[r];
              distance2[i][r] = fmaf(difference, difference, distance2[i][r]);
            }
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kPerWarp; ++i)
#pragma unroll
      for (int r = 0; r < kRowsPerLane; ++r) {
        const int64_t row = first_row + r * kLanes + lane;
        const bool valid = row < end && row >= lower[i] && row < upper[i] && isfinite(distance2[i][r]);
        selection[i].offer(valid ? key_of(distance2[i][r], row) : kEmpty);
      }
  }

#pragma unroll
  for (int i = 0; i < kPerWarp; ++i) {
    const int64_t q = first_query + warp * kPerWarp + i;
    selection[i].cut_back();
    if (q > last_query) continue;
    uint64_t* out = args.found + (blockIdx.y * args.num_queries + q) * args.k;
    for (int j = lane; j < args.k; j += kLanes) out[j] = selection[i].keys[j];
  }
}

// One warp for each query merges the splits' lists and writes the results. Grid: blocks of kWarps queries.
__global__ void __launch_bounds__(kWarps* kLanes) merge_kernel(const uint64_t* found, int64_t num_queries, int k,
                                                               int length, int splits, float* dist2, int64_t* idx) {
  extern __shared__ uint64_t lists[];  // (kWarps, length)
  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;
  const int64_t q = blockIdx.x * int64_t(kWarps) + warp;
  if (q >= num_queries) return;
  WarpSelection selection{lists + warp * length, k, length};
  selection.start();
  for (int s = 0; s < splits; ++s)
    for (int first = 0; first < k; first += kLanes) {
      const int j = first + lane;
      selection.offer(j < k ? found[(s * num_queries + q) * k + j] : kEmpty);
    }
  selection.cut_back();
  for (int j = lane; j < k; j += kLanes) {
    const uint64_t key = selection.keys[j];
    const bool there = key != kEmpty;
    dist2[q * k + j] = there ? __uint_as_float(static_cast<uint32_t>(key >> 32)) : INFINITY;
    idx[q * k + j] = there ? static_cast<int64_t>(key & 0xffffffffu) : -1;
  }
}

// Into how many parts to split the base rows, where the card holds `slots` blocks at a time. Blocks run in waves, and a
// last wave that is hardly filled costs as much as a full one: of s parts each wave does 1 / s of the work. Of the
// numbers that come close to the least time the smallest is taken, since every part selects anew. No part is smaller
// than eight tiles.
inline int splits_for(int64_t query_blocks, int64_t num_base, int64_t slots) {
  constexpr double kClose = 1.1;
  const auto most = static_cast<int>(std::clamp<int64_t>(num_base / (8 * kTileRows), 1, 64));
  const auto time_of = [&](int splits) {
    const int64_t waves = (query_blocks * splits + slots - 1) / slots;
    return static_cast<double>(waves) / splits;
  };
  double least = time_of(1);
  for (int splits = 2; splits <= most; ++splits) least = std::min(least, time_of(splits));
  int splits = 1;
  while (time_of(splits) > kClose * least) ++splits;
  return splits;
}

// The k nearest of every part of the base rows: (splits, Q, k) keys in ascending order.
template <int kPerWarp>
at::Tensor search(SearchArgs args, const at::TensorOptions& options, cudaStream_t stream) {
  constexpr int kBlockQueries = kWarps * kPerWarp;
  const auto shared = static_cast<size_t>(list_bytes(args.k, kPerWarp));
  const auto kernel = search_kernel<kPerWarp>;
  C10_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)));
  int processors = 0, blocks = 0;
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, options.device().index()));
  C10_CUDA_CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, kWarps * kLanes, shared));
  const int64_t query_blocks = (args.num_queries + kBlockQueries - 1) / kBlockQueries;
  args.splits = splits_for(query_blocks, args.num_base, std::max<int64_t>(int64_t(processors) * blocks, 1));
  at::Tensor found = at::empty({args.splits, args.num_queries, args.k}, options);
  args.found = reinterpret_cast<uint64_t*>(found.mutable_data_ptr<int64_t>());
  const dim3 grid(static_cast<unsigned>(query_blocks), static_cast<unsigned>(args.splits));
  kernel<<<grid, kWarps * kLanes, shared, stream>>>(args);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return found;
}

// Whether a frame id is smaller than the one before it, on the device.
inline at::Tensor descends(const at::Tensor& frame) {  // not empty
  const int64_t n = frame.size(0);
  return frame.narrow(0, 1, n - 1).lt(frame.narrow(0, 0, n - 1)).any();
}

inline void check_ascending(const at::Tensor& query_frame, const at::Tensor& base_frame) {
  const at::Tensor both = at::stack({descends(query_frame), descends(base_frame)}).cpu();  // one wait for the device
  for (int which : {0, 1})
    TORCH_CHECK_VALUE(!both.const_data_ptr<bool>()[which], which == 0 ? "query_frame" : "base_frame",
                      " must be non-decreasing; sort the rows by frame first");
}

// How many queries a warp takes on this card; an error if the lists of k neighbours do not fit into its shared memory.
inline int check_memory(int64_t k, c10::DeviceIndex device) {
  int limit = 0;
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  const int per_warp = queries_a_warp(k, limit);
  TORCH_CHECK_VALUE(per_warp > 0, "k must be at most ", most_neighbours(limit), " on this GPU, whose blocks have ",
                    limit, " bytes of shared memory, got ", k, ", which needs ", list_bytes(k, 1) + tile_bytes(1),
                    "; search for fewer neighbours, or on the CPU");
  return per_warp;
}

std::tuple<at::Tensor, at::Tensor> knn(const at::Tensor& query, const at::Tensor& base, int64_t k,
                                       const std::optional<at::Tensor>& query_frame,
                                       const std::optional<at::Tensor>& base_frame) {
  check_knn(query, base, k, query_frame, base_frame);
  TORCH_CHECK_VALUE(query.scalar_type() == at::kFloat, "query must be float32 on the GPU, got ", query.scalar_type());
  TORCH_CHECK_VALUE(k <= kMostNeighbours, "k must be at most ", kMostNeighbours, " on the GPU, got ", k);
  const DeviceGuard guard(query.device());
  const int per_warp = check_memory(k, query.device().index());
  const at::Tensor q = query.contiguous(), b = base.contiguous();
  const auto longs = q.options().dtype(at::kLong);
  if (q.size(0) == 0 || b.size(0) == 0)
    return {at::full({q.size(0), k}, std::numeric_limits<double>::infinity(), q.options()),
            at::full({q.size(0), k}, -1, longs)};

  at::Tensor lower, upper;
  if (query_frame) {
    const at::Tensor q_frame = query_frame->contiguous(), b_frame = base_frame->contiguous();
    check_ascending(q_frame, b_frame);
    lower = at::empty({q.size(0)}, longs);
    upper = at::empty({q.size(0)}, longs);
    for_each(q.size(0), RangeOfQuery{q_frame.const_data_ptr<int64_t>(), b_frame.const_data_ptr<int64_t>(), b.size(0),
                                     lower.mutable_data_ptr<int64_t>(), upper.mutable_data_ptr<int64_t>()});
  }

  const auto stream = c10::cuda::getCurrentCUDAStream();
  const auto length = static_cast<int>(list_length(k));
  const SearchArgs args{q.const_data_ptr<float>(),
                        b.const_data_ptr<float>(),
                        query_frame ? lower.const_data_ptr<int64_t>() : nullptr,
                        query_frame ? upper.const_data_ptr<int64_t>() : nullptr,
                        q.size(0),
                        b.size(0),
                        q.size(1),
                        static_cast<int>(k),
                        length};
  const at::Tensor found = (per_warp == 4 ? search<4> : per_warp == 2 ? search<2> : search<1>)(args, longs, stream);

  at::Tensor dist2 = at::empty({q.size(0), k}, q.options()), idx = at::empty({q.size(0), k}, longs);
  const auto shared = static_cast<size_t>(list_bytes(k, 1));
  C10_CUDA_CHECK(
      cudaFuncSetAttribute(merge_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)));
  const auto blocks = static_cast<unsigned>((q.size(0) + kWarps - 1) / kWarps);
  merge_kernel<<<blocks, kWarps * kLanes, shared, stream>>>(
      reinterpret_cast<const uint64_t*>(found.const_data_ptr<int64_t>()), q.size(0), static_cast<int>(k), length,
      static_cast<int>(found.size(0)), dist2.mutable_data_ptr<float>(), idx.mutable_data_ptr<int64_t>());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return {dist2, idx};
}

TORCH_LIBRARY_IMPL(pcdet, CUDA, m) { m.impl("knn", &knn); }

}  // namespace pcdet::PCDET_BACKEND
