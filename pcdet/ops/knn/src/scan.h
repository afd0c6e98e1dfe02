// Scores of base rows for queries on the grid, a matrix product of 16-bit integers made a few columns at a time, and
// the choice of those within each query's bound. One pair of loops for each instruction set, from the same source,
// scan.inc; the best is chosen when the program runs.
#pragma once

#include <pcdet/backend.h>

#include <bit>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "candidates.h"
#include "grid.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#define PCDET_X86 1
#endif

namespace pcdet::cpu {

using ScoreCandidates = Candidates<int32_t, ScoreSlack>;

constexpr int64_t kPanel = 32;  // base rows that stand side by side, two channels at a time

constexpr int64_t kMostPanels = ScoreCandidates::kBurst / kPanel;  // whose hits are collected at once

// (M, C) rows on the grid as panels [C / 2][32][2] with |B|^2 / 2 beside them. Panel p holds rows p, p + panels,
// p + 2 panels, ...: any few panels are a sample of rows from everywhere.
class PackedBase {
 public:
  PackedBase(const Grid& grid, const float* rows, int64_t count)
      : pairs_((grid.channels() + 1) / 2),
        panels_((count + kPanel - 1) / kPanel),
        packed_(panels_ * kPanel * pairs_),
        half_lengths2_(panels_ * kPanel, kNever) {
    for (int64_t lane = 0; lane < kPanel; ++lane) first_rows_[lane] = static_cast<int32_t>(lane * panels_);
    std::vector<double> residuals2(panels_);
    at::parallel_for(0, panels_, /*grain_size=*/1 + kPairsPerThread / (kPanel * grid.channels()),
                     [&](int64_t begin, int64_t end) {
                       std::vector<int16_t> rounded(2 * pairs_);  // the last one stays zero if C is odd
                       for (int64_t panel = begin; panel < end; ++panel)
                         for (int64_t lane = 0, row = panel; lane < kPanel && row < count; ++lane, row += panels_) {
                           const float* values = rows + row * grid.channels();
                           if (!grid.holds(values)) continue;
                           const Rounded what = grid.round(values, rounded.data());
                           int32_t* column = packed_.data() + panel * kPanel * pairs_ + lane;
                           for (int64_t c = 0; c < pairs_; ++c)
                             std::memcpy(column + c * kPanel, rounded.data() + 2 * c, sizeof(int32_t));
                           half_lengths2_[panel * kPanel + lane] = static_cast<int32_t>(what.length2 / 2);
                           residuals2[panel] = std::max(residuals2[panel], what.residual2);
                         }
                     });
    residual_ = std::sqrt(*std::max_element(residuals2.begin(), residuals2.end()));
    for (int64_t row = 0; row < count; ++row)
      if (half_lengths2_[row % panels_ * kPanel + row / panels_] == kNever) far_.push_back(static_cast<int32_t>(row));
  }

  int64_t pairs() const { return pairs_; }
  int64_t panels() const { return panels_; }
  const int32_t* panel(int64_t p) const { return packed_.data() + p * kPanel * pairs_; }
  const int32_t* half_lengths2(int64_t p) const { return half_lengths2_.data() + p * kPanel; }
  const int32_t* first_rows() const { return first_rows_; }  // lane l of panel p is row first_rows()[l] + p
  double residual() const { return residual_; }              // the most that rounding moved a row
  const std::vector<int32_t>& far() const { return far_; }   // rows that the grid does not hold

 private:
  int64_t pairs_, panels_;
  std::vector<int32_t> packed_, half_lengths2_;
  std::vector<int32_t> far_;
  double residual_ = 0;
  int32_t first_rows_[kPanel];
};

#ifdef PCDET_X86
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx2,popcnt")
namespace avx512 {
inline void append(__m512i values, uint32_t hits, int32_t* out) {
  _mm512_storeu_si512(out, _mm512_maskz_compress_epi32(static_cast<__mmask16>(hits), values));
}
#define SCAN_QUERIES 12
#define SCAN_VECTOR __m512i
#define SCAN_LANES 16
#define SCAN_LOAD(p) _mm512_loadu_si512(p)
#define SCAN_STORE(p, a) _mm512_storeu_si512(p, a)
#define SCAN_SET(x) _mm512_set1_epi32(x)
#define SCAN_ADD(a, b) _mm512_add_epi32(a, b)
#define SCAN_ADD_PAIRS(a, b, c) _mm512_add_epi32(_mm512_madd_epi16(a, b), c)
#define SCAN_AT_MOST(a, b) static_cast<uint32_t>(_mm512_cmple_epi32_mask(a, b))
#include "scan.inc"
}  // namespace avx512
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx512vnni,avx2,popcnt")
namespace avx512vnni {
using avx512::append;
#undef SCAN_ADD_PAIRS
#define SCAN_ADD_PAIRS(a, b, c) _mm512_dpwssd_epi32(c, a, b)
#include "scan.inc"
#include "scan_undef.inc"
}  // namespace avx512vnni
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,popcnt")
namespace avx2 {
inline void append(__m256i values, uint32_t hits, int32_t* out) {
  alignas(32) int32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), values);
  for (; hits; hits &= hits - 1) *out++ = lanes[std::countr_zero(hits)];
}
#define SCAN_QUERIES 6
#define SCAN_VECTOR __m256i
#define SCAN_LANES 8
#define SCAN_LOAD(p) _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))
#define SCAN_STORE(p, a) _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a)
#define SCAN_SET(x) _mm256_set1_epi32(x)
#define SCAN_ADD(a, b) _mm256_add_epi32(a, b)
#define SCAN_ADD_PAIRS(a, b, c) _mm256_add_epi32(_mm256_madd_epi16(a, b), c)
#define SCAN_AT_MOST(a, b) \
  (~static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(a, b)))) & 0xffu)
#include "scan.inc"
#include "scan_undef.inc"
}  // namespace avx2
#pragma GCC pop_options
#endif

namespace any {
typedef int32_t Vector __attribute__((vector_size(16)));  // SSE or NEON
inline Vector load(const int32_t* p) { return Vector{p[0], p[1], p[2], p[3]}; }
inline void store(int32_t* p, Vector a) { std::memcpy(p, &a, sizeof(a)); }
// a and b hold two numbers in each lane: c + the sum of the two products.
inline Vector add_pairs(Vector a, Vector b, Vector c) {
#ifdef PCDET_X86
  return (Vector)_mm_add_epi32(_mm_madd_epi16((__m128i)a, (__m128i)b), (__m128i)c);
#else
  typedef uint32_t Bits __attribute__((vector_size(16)));  // whose sums may wrap
  const Vector low = ((Vector)((Bits)a << 16) >> 16) * ((Vector)((Bits)b << 16) >> 16), high = (a >> 16) * (b >> 16);
  return (Vector)((Bits)low + (Bits)high + (Bits)c);
#endif
}
inline uint32_t at_most(Vector a, Vector b) {
  const auto is = a <= b;
  return (is[0] & 1) | (is[1] & 2) | (is[2] & 4) | (is[3] & 8);
}
inline void append(Vector values, uint32_t hits, int32_t* out) {
  for (; hits; hits &= hits - 1) *out++ = values[std::countr_zero(hits)];
}
#define SCAN_QUERIES 6
#define SCAN_VECTOR Vector
#define SCAN_LANES 4
#define SCAN_LOAD(p) load(p)
#define SCAN_STORE(p, a) store(p, a)
#define SCAN_SET(x) (Vector{} + (x))
#define SCAN_ADD(a, b) ((a) + (b))
#define SCAN_ADD_PAIRS(a, b, c) add_pairs(a, b, c)
#define SCAN_AT_MOST(a, b) at_most(a, b)
#include "scan.inc"
#include "scan_undef.inc"
}  // namespace any

// queries: (C / 2, queries) pairs, times -1.
struct Scan {
  int64_t queries;  // of a tile
  // Scores of panels [begin, end), query by query, a row of `stride` for each.
  void (*scores)(const PackedBase&, int64_t begin, int64_t end, const int32_t* queries, int32_t* out, int64_t stride);
  // Pushes the rows of panels [begin, end) whose scores, given for one query, are within its bound.
  void (*collect)(const PackedBase&, int64_t begin, int64_t end, const int32_t* scores, ScoreCandidates&);
};

// The widest that this processor can run; PCDET_SIMD=avx512, =avx2 or =baseline asks for less (tests do).
inline Scan best_scan() {
  const char* asked = std::getenv("PCDET_SIMD");
  const std::string_view limit = asked ? asked : "";
#ifdef PCDET_X86
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  const bool has_vnni = has_avx512 && __builtin_cpu_supports("avx512vnni");
  if (has_vnni && limit.empty()) return {12, avx512vnni::scan_scores, avx512vnni::scan_collect};
  if (has_avx512 && (limit.empty() || limit == "avx512")) return {12, avx512::scan_scores, avx512::scan_collect};
  if (__builtin_cpu_supports("avx2") && limit != "baseline") return {6, avx2::scan_scores, avx2::scan_collect};
#endif
  return {6, any::scan_scores, any::scan_collect};
}

}  // namespace pcdet::cpu
