// Greedy non-maximum suppression on the GPU. All pairs are judged in parallel, 64 verdicts to a word; one block then
// walks the words and writes the keep list and its length on the device, so that the host need not wait.
#include <ATen/ops/index_select.h>

#include "ground_boxes.h"
#include "nms_host.h"

namespace pcdet::PCDET_BACKEND {

constexpr int kWord = 64;
constexpr int64_t kMostBoxes = int64_t(65535) * kWord;  // one row of blocks for each word

// mask[i][w] bit k: box i suppresses box w * 64 + k, for every later box. Words left of the diagonal are not written.
template <bool kRotated, typename T>
__global__ void judge_pairs_kernel(const GroundBox<T>* boxes, int64_t n, T thresh, uint64_t* mask) {
  const int64_t words = gridDim.x, word = blockIdx.x, first_row = blockIdx.y * int64_t(kWord);
  if (word < blockIdx.y) return;
  __shared__ GroundBox<T> others[kWord];
  const int64_t first_other = word * kWord;
  const int count = static_cast<int>(min(int64_t(kWord), n - first_other));
  if (threadIdx.x < count) others[threadIdx.x] = boxes[first_other + threadIdx.x];
  __syncthreads();
  const int64_t i = first_row + threadIdx.x;
  if (i >= n) return;
  const GroundBox<T> box = boxes[i];
  uint64_t verdicts = 0;
  for (int k = 0; k < count; ++k)
    if (first_other + k > i && suppresses<kRotated>(box, others[k], thresh)) verdicts |= uint64_t(1) << k;
  mask[i * words + word] = verdicts;
}

// One block. Writes the kept boxes' original indices to keep (N,) and their number to *num_kept, or kNotFinite there.
template <typename T>
__global__ void walk_kernel(const uint64_t* mask, const GroundBox<T>* boxes, const T* scores, const int64_t* order,
                            int64_t n, int64_t words, uint64_t* removed, int64_t* keep, int64_t* num_kept) {
  __shared__ uint64_t diagonal[kWord], kept_of_word;
  bool bad = false;
  int64_t total = 0;
  for (int64_t word = 0; word < words; ++word) {
    const int64_t first = word * kWord;
    const int count = static_cast<int>(min(int64_t(kWord), n - first));
    if (threadIdx.x < count) {
      const int64_t i = first + threadIdx.x;
      diagonal[threadIdx.x] = mask[i * words + word];
      bad |= !isfinite(boxes[i].x) || !isfinite(scores[i]);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      uint64_t gone = removed[word], kept = 0;
      for (int k = 0; k < count; ++k) {
        if (gone >> k & 1) continue;
        kept |= uint64_t(1) << k;
        gone |= diagonal[k];
      }
      kept_of_word = kept;
    }
    __syncthreads();
    const uint64_t kept = kept_of_word;
    if (threadIdx.x < count && (kept >> threadIdx.x & 1)) {
      const uint64_t before = kept & ((uint64_t(1) << threadIdx.x) - 1);
      keep[total + __popcll(before)] = order[first + threadIdx.x];
    }
    total += __popcll(kept);
    for (int64_t later = word + 1 + threadIdx.x; later < words; later += blockDim.x) {
      uint64_t gone = removed[later];
      for (uint64_t rest = kept; rest; rest &= rest - 1) gone |= mask[(first + __ffsll(rest) - 1) * words + later];
      removed[later] = gone;
    }
  }
  bad = __syncthreads_or(bad);
  if (threadIdx.x == 0) *num_kept = bad ? kNotFinite : total;
}

struct CudaNms {
  template <bool kRotated, typename T>
  static void suppress(const at::Tensor& boxes, const at::Tensor& scores, const at::Tensor& order, T thresh,
                       int64_t* keep, int64_t* count) {
    const int64_t n = boxes.size(0), words = (n + kWord - 1) / kWord;
    TORCH_CHECK_VALUE(n <= kMostBoxes, "boxes must number at most ", kMostBoxes, ", got ", n);
    const auto stream = c10::cuda::getCurrentCUDAStream();
    const at::Tensor values = scores.to(boxes.scalar_type());
    at::Tensor ground = ground_boxes<T>(boxes.index_select(0, order).contiguous());
    const GroundBox<T>* prepared = as_ground_boxes<T>(ground);
    at::Tensor mask = at::empty({n, words}, order.options()), removed = at::zeros({words}, order.options());
    auto* mask_words = reinterpret_cast<uint64_t*>(mask.mutable_data_ptr<int64_t>());
    auto* removed_words = reinterpret_cast<uint64_t*>(removed.mutable_data_ptr<int64_t>());
    const auto* rows = order.const_data_ptr<int64_t>();

    const dim3 grid(static_cast<unsigned>(words), static_cast<unsigned>(words));
    judge_pairs_kernel<kRotated, T><<<grid, kWord, 0, stream>>>(prepared, n, thresh, mask_words);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    walk_kernel<T><<<1, 512, 0, stream>>>(mask_words, prepared, values.const_data_ptr<T>(), rows, n, words,
                                          removed_words, keep, count);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
};

TORCH_LIBRARY_IMPL(pcdet, CUDA, m) { register_nms<CudaNms>(m); }

}  // namespace pcdet::PCDET_BACKEND
