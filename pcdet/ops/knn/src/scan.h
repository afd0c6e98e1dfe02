// Neighbours among wide rows: a matrix product whose results are compared with each query's bound while they are still
// in registers, so that the matrix of distances never exists.
#pragma once

#include <pcdet/backend.h>

#include <bit>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "candidates.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define PCDET_X86 1
#endif

namespace pcdet::cpu {

constexpr int64_t kPanel = 32;  // base rows that stand side by side, channel by channel

// (M, C) rows, minus a centre, as panels [M / 32][C][32] with the squared lengths beside them. The last panel is filled
// up with zeros at an infinite distance.
class PackedBase {
 public:
  PackedBase(const float* rows, int64_t count, int64_t channels)
      : channels_(channels),
        panels_((count + kPanel - 1) / kPanel),
        centre_(channels),
        rows_(panels_ * kPanel * channels),
        norms_(panels_ * kPanel, std::numeric_limits<float>::infinity()) {
    std::vector<double> sum(channels, 0.0);
    for (int64_t i = 0; i < count; ++i)
      for (int64_t c = 0; c < channels; ++c) sum[c] += rows[i * channels + c];
    for (int64_t c = 0; c < channels; ++c) centre_[c] = static_cast<float>(sum[c] / static_cast<double>(count));
    at::parallel_for(0, panels_, /*grain_size=*/1 + kPairsPerThread / (kPanel * channels),
                     [&](int64_t begin, int64_t end) {
                       for (int64_t i = begin * kPanel; i < std::min(end * kPanel, count); ++i) {
                         float* column = rows_.data() + i / kPanel * kPanel * channels + i % kPanel;
                         double norm = 0;
                         for (int64_t c = 0; c < channels; ++c) {
                           const float x = rows[i * channels + c] - centre_[c];
                           column[c * kPanel] = x;
                           norm += static_cast<double>(x) * x;
                         }
                         norms_[i] = static_cast<float>(norm);
                       }
                     });
    for (int64_t i = 0; i < count; ++i) largest_norm_ = std::max(largest_norm_, norms_[i]);
  }
  int64_t channels() const { return channels_; }
  int64_t panels() const { return panels_; }
  const float* rows(int64_t panel) const { return rows_.data() + panel * kPanel * channels_; }
  const float* norms() const { return norms_.data(); }
  const float* centre() const { return centre_.data(); }

  // How far rounding may shift the difference of two scores of a query of this length: the a-priori bound for a sum of
  // C products, with a few roundings more for centring and the norms, once for each score.
  float margin(double query_norm) const {
    constexpr double kUnit = 1.0 / (1 << 24);
    const double base = largest_norm_, product = std::sqrt(query_norm * base);
    const double terms = static_cast<double>(channels_ + 8);
    return static_cast<float>(2 * kUnit * (2 * terms * product + 8 * (base + query_norm)));
  }

 private:
  int64_t channels_, panels_;
  std::vector<float> centre_, rows_, norms_;
  float largest_norm_ = 0;
};

#ifdef PCDET_X86
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")
namespace avx512 {
inline void push_hits(Candidates<float>& found, __m512 scores, uint32_t hits, int32_t first) {
  const auto mask = static_cast<__mmask16>(hits);
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i rows = _mm512_add_epi32(lanes, _mm512_set1_epi32(first));
  _mm512_storeu_ps(found.next_values(), _mm512_maskz_compress_ps(mask, scores));
  _mm512_storeu_si512(found.next_rows(), _mm512_maskz_compress_epi32(mask, rows));
  found.pushed(std::popcount(hits));
}
#define SCAN_QUERIES 12
#define SCAN_VECTOR __m512
#define SCAN_LANES 16
#define SCAN_LOAD(p) _mm512_loadu_ps(p)
#define SCAN_SET(x) _mm512_set1_ps(x)
#define SCAN_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define SCAN_AT_MOST(a, b) static_cast<uint32_t>(_mm512_cmp_ps_mask(a, b, _CMP_LE_OQ))
#include "scan.inc"
#include "scan_undef.inc"
}  // namespace avx512
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
inline void push_hits(Candidates<float>& found, __m256 scores, uint32_t hits, int32_t first) {
  alignas(32) float values[8];
  _mm256_store_ps(values, scores);
  for (; hits; hits &= hits - 1) found.push(values[std::countr_zero(hits)], first + std::countr_zero(hits));
}
#define SCAN_QUERIES 6
#define SCAN_VECTOR __m256
#define SCAN_LANES 8
#define SCAN_LOAD(p) _mm256_loadu_ps(p)
#define SCAN_SET(x) _mm256_set1_ps(x)
#define SCAN_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define SCAN_AT_MOST(a, b) static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_LE_OQ)))
#include "scan.inc"
#include "scan_undef.inc"
}  // namespace avx2
#pragma GCC pop_options
#endif

namespace any {
typedef float Vector __attribute__((vector_size(16)));  // SSE or NEON
inline Vector load(const float* p) { return Vector{p[0], p[1], p[2], p[3]}; }
inline uint32_t at_most(Vector a, Vector b) {
  const auto is = a <= b;
  return (is[0] & 1) | (is[1] & 2) | (is[2] & 4) | (is[3] & 8);
}
inline void push_hits(Candidates<float>& found, Vector scores, uint32_t hits, int32_t first) {
  for (; hits; hits &= hits - 1) found.push(scores[std::countr_zero(hits)], first + std::countr_zero(hits));
}
#define SCAN_QUERIES 6
#define SCAN_VECTOR Vector
#define SCAN_LANES 4
#define SCAN_LOAD(p) load(p)
#define SCAN_SET(x) (Vector{} + (x))
#define SCAN_FMA(a, b, c) ((a) * (b) + (c))
#define SCAN_AT_MOST(a, b) at_most(a, b)
#include "scan.inc"
#include "scan_undef.inc"
}  // namespace any

struct Scan {
  int64_t queries;  // of a tile
  void (*panels)(const PackedBase&, int64_t, int64_t, const float*, Candidates<float>* const*);
};

// The widest that this processor can run; PCDET_SIMD=avx2 or =baseline asks for less (tests do).
inline Scan best_scan() {
  const char* asked = std::getenv("PCDET_SIMD");
  const std::string_view limit = asked ? asked : "";
#ifdef PCDET_X86
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (has_avx512 && limit.empty()) return {12, avx512::scan_panels};
  if (has_avx2 && limit != "baseline") return {6, avx2::scan_panels};
#endif
  return {6, any::scan_panels};
}

}  // namespace pcdet::cpu
