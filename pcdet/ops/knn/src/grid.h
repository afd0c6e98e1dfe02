// Rows rounded to a grid of integers, on which distances are exact and two products are one instruction.
//
// With points q, b in units of the grid, centred, and Q, B the nearest grid points, the triangle inequality gives
//   | |q - b| - |Q - B| | <= |q - Q| + |b - B|,
// and |Q - B| comes from integers without rounding: |Q - B|^2 = |Q|^2 + 2 (|B|^2 / 2 - Q B). The bracket is the score
// of a row for a query. What is left of the error is known for every row, about 1/1000 of a typical length, and it is
// the distances' error, not one of the much longer rows' lengths: tight groups of rows are told apart too.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "simd_kernels.h"

namespace pcdet::cpu {

// Lengths on the grid stay below it, so that a score, at most 1.5 kReach^2, fits into 32 bits. (Rounding adds at most
// sqrt(C) / 2.)
constexpr double kReach = 32000;
constexpr int32_t kGreatestScore = std::numeric_limits<int32_t>::max() - 1;
constexpr int32_t kNever = std::numeric_limits<int32_t>::max();  // the score of a row that is not there

// The greatest score of a row that may be among the k nearest, from the k-th smallest score.
struct ScoreSlack {
  double length2 = 0;   // |Q|^2
  double residual = 0;  // the most that |q - Q| + |b - B| can be
  double rounding = 1;  // 1 + the most by which float32 may reorder distances

  int32_t operator()(int32_t kth_score) const {
    const double kth = std::sqrt(std::max(0.0, 2.0 * kth_score + 1 + length2)) + residual;  // at most this far
    const double farthest = kth * rounding + residual;
    const double score = (farthest * farthest - length2) / 2 + 1;
    return score < kGreatestScore ? static_cast<int32_t>(score) : kGreatestScore;
  }
};

// The grid of one frame. A few rows may lie so far out that a grid for all would be too coarse for the rest: those that
// are 16 times longer than 99 of 100 others are left off it.
class Grid {
 public:
  Grid(const float* query, int64_t num_queries, const float* base, int64_t num_base, int64_t channels)
      : channels_(channels), centre_(channels) {
    for (int64_t i = 0; i < num_base; ++i)
      for (int64_t c = 0; c < channels; ++c) centre_[c] += base[i * channels + c];
    for (double& x : centre_) x /= static_cast<double>(num_base);
    const auto [usual_base, longest_base] = lengths2(base, num_base);
    const auto [usual_query, longest_query] = lengths2(query, num_queries);
    constexpr double kFar = 16;
    reach2_ = std::min(std::max(longest_base, longest_query), kFar * kFar * std::max(usual_base, usual_query));
    scale_ = reach2_ > 0 ? kReach / std::sqrt(reach2_) : 1;
  }

  int64_t channels() const { return channels_; }
  bool holds(const float* row) const { return length2_of(row, centre_.data(), channels_) <= reach2_; }
  // out (C,): the grid point nearest to a row that the grid holds.
  Rounded round(const float* row, int16_t* out) const { return round_row(row, centre_.data(), scale_, channels_, out); }

  ScoreSlack slack(const Rounded& query, double base_residual) const {
    constexpr double kUnit = 1.0 / (1 << 24), kDoubleRounding = 1e-6;
    return {query.length2, std::sqrt(query.residual2) + base_residual + kDoubleRounding,
            1 + 4 * kUnit * static_cast<double>(channels_ + 16)};
  }

 private:
  // The squared lengths of the 99th of 100 rows and of the longest one.
  std::pair<double, double> lengths2(const float* rows, int64_t count) const {
    std::vector<double> lengths(count);
    for (int64_t i = 0; i < count; ++i) lengths[i] = length2_of(rows + i * channels_, centre_.data(), channels_);
    const auto usual = lengths.begin() + (count - 1) * 99 / 100;
    std::nth_element(lengths.begin(), usual, lengths.end());
    return {*usual, *std::max_element(usual, lengths.end())};
  }

  int64_t channels_;
  std::vector<double> centre_;
  double scale_ = 1, reach2_ = 0;
};

}  // namespace pcdet::cpu
