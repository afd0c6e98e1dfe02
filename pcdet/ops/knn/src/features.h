// Neighbours among wide rows. For each query:
//   1. scores of a sample of the rows on the integer grid (grid.h); a small one of them that about 2 k rows of all
//      should not exceed is the first bound: a guess, so that few rows are looked at twice;
//   2. scores of the other rows, of which those within the bound are collected (scan.h, candidates.h);
//   3. the k-th smallest score tells which of them may be among the k nearest. If the guess was too low to know, the
//      query is searched once more with a bound that is not;
//   4. those, a few more than k, are ranked by their distances in float32 (search_job.h).
// The result is that of 4 for all rows: what the grid loses never shows.
#pragma once

#include <pcdet/backend.h>

#include <cstring>
#include <numeric>
#include <vector>

#include "scan.h"
#include "search_job.h"

namespace pcdet::cpu {

// Searches blocks of queries of one frame; one for each thread.
class BlockSearch {
 public:
  static constexpr int64_t kTiles = 8;  // of a block

  BlockSearch(const SearchJob<float>& job, const Grid& grid, const PackedBase& base, const Scan& scan)
      : job_(job),
        grid_(grid),
        base_(base),
        scan_(scan),
        k_(std::min<int64_t>(job.k, job.num_base - static_cast<int64_t>(base.far().size()))),
        found_(kTiles * scan.queries),
        packed_(kTiles * scan.queries * base.pairs()),
        scores_(scan.queries * kStride) {
    const double share = static_cast<double>(kChunk) / static_cast<double>(base.panels());
    if (share < 1) {
      // So many of the k nearest should be in the first chunk. With the guess at that many and some more, but for one
      // query in some thousand there are k rows within the guess.
      const double expected = static_cast<double>(k_) * share;
      sample_rank_ = std::min(kChunk * kPanel, static_cast<int64_t>(std::ceil(expected + 3 * std::sqrt(expected) + 3)));
    }
  }

  int64_t size() const { return kTiles * scan_.queries; }

  // Searches for up to size() queries. Those whose guess was too low are left for `finish`.
  void search(const int64_t* queries, int64_t count) { run(queries, nullptr, count); }

  void finish() {
    const std::vector<int64_t> queries = std::move(again_);
    const std::vector<int32_t> bounds = std::move(again_bounds_);
    again_.clear();
    again_bounds_.clear();
    const auto left = static_cast<int64_t>(queries.size());
    for (int64_t i = 0; i < left; i += size()) run(&queries[i], &bounds[i], std::min(size(), left - i));
  }

 private:
  static constexpr int64_t kChunk = kMostPanels;  // of base rows; the first is a sample of them all
  static constexpr int64_t kStride =
      kChunk * kPanel + 16;  // of a tile's scores; not a power of two: they share a cache

  // bounds: (count,) or null, for guesses.
  void run(const int64_t* queries, const int32_t* bounds, int64_t count) {
    const int64_t tile = scan_.queries, tiles = (count + tile - 1) / tile;
    for (int64_t i = 0; i < tiles * tile; ++i) {
      if (i < count && grid_.holds(job_.query_row(queries[i])))
        start(i, queries[i], bounds ? bounds[i] : kGreatestScore);
      else
        close(i);
    }
    // Chunk by chunk, so that base rows stay in the second-level cache for all tiles.
    for (int64_t begin = 0, end; begin < base_.panels(); begin = end) {
      end = std::min(begin + kChunk, base_.panels());
      for (int64_t t = 0; t < tiles; ++t) scan(t, begin, end, begin == 0 && !bounds);
    }
    for (int64_t i = 0; i < count; ++i) rank(i, queries[i]);
  }

  int64_t spare() const { return std::max<int64_t>(2 * k_, 64); }
  int32_t* tile_of(int64_t t) { return packed_.data() + t * scan_.queries * base_.pairs(); }
  int32_t* column_of(int64_t i) { return tile_of(i / scan_.queries) + i % scan_.queries; }

  void start(int64_t i, int64_t query, int32_t bound) {
    rounded_.assign(2 * base_.pairs(), 0);
    const Rounded what = grid_.round(job_.query_row(query), rounded_.data());
    for (int16_t& x : rounded_) x = static_cast<int16_t>(-x);
    for (int64_t c = 0; c < base_.pairs(); ++c)
      std::memcpy(column_of(i) + c * scan_.queries, rounded_.data() + 2 * c, sizeof(int32_t));
    found_[i].start(k_, spare(), bound, grid_.slack(what, base_.residual()));
  }

  // Lets nothing in: fills a tile up, or stands for a query that the grid does not hold.
  void close(int64_t i) {
    for (int64_t c = 0; c < base_.pairs(); ++c) column_of(i)[c * scan_.queries] = 0;
    found_[i].start(k_, spare(), std::numeric_limits<int32_t>::min());
  }

  // Collects a tile's candidates among panels [begin, end), guessing the bounds before the first.
  void scan(int64_t t, int64_t begin, int64_t end, bool guess) {
    scan_.scores(base_, begin, end, tile_of(t), scores_.data(), kStride);
    for (int64_t i = 0; i < scan_.queries; ++i) {
      ScoreCandidates& found = found_[t * scan_.queries + i];
      const int32_t* scores = scores_.data() + i * kStride;
      if (guess && sample_rank_) found.guess(limit_of(scores, kChunk * kPanel, sample_rank_, sample_rank_ / 8));
      scan_.collect(base_, begin, end, scores, found);
    }
  }

  void rank(int64_t i, int64_t query) {
    ScoreCandidates& found = found_[i];
    if (!grid_.holds(job_.query_row(query))) {
      rows_.resize(job_.num_base);
      std::iota(rows_.begin(), rows_.end(), 0);
      job_.rank(query, rows_.data(), job_.num_base);
    } else if (!found.finish()) {
      again_.push_back(query);
      again_bounds_.push_back(std::min(found.bound(), kGreatestScore));
    } else {
      rows_.assign(found.rows(), found.rows() + found.count());
      rows_.insert(rows_.end(), base_.far().begin(), base_.far().end());
      job_.rank(query, rows_.data(), static_cast<int64_t>(rows_.size()));
    }
  }

  const SearchJob<float>& job_;
  const Grid& grid_;
  const PackedBase& base_;
  const Scan& scan_;
  const int64_t k_;          // neighbours wanted among the rows on the grid
  int64_t sample_rank_ = 0;  // 0: the first chunk is all there is
  std::vector<ScoreCandidates> found_;
  std::vector<int32_t> packed_, scores_, rows_;
  std::vector<int16_t> rounded_;
  std::vector<int64_t> again_;
  std::vector<int32_t> again_bounds_;
};

inline void search_features(const SearchJob<float>& job) {
  static const Scan scan = best_scan();
  const Grid grid(job.query, job.num_queries, job.base, job.num_base, job.channels);
  const PackedBase base(grid, job.base, job.num_base);
  const int64_t tiles = (job.num_queries + scan.queries - 1) / scan.queries;
  const int64_t tiles_per_thread = 1 + 64 * kItemsPerThread * kPanel / (scan.queries * job.num_base * job.channels);
  at::parallel_for(0, tiles, tiles_per_thread, [&](int64_t begin, int64_t end) {
    BlockSearch search(job, grid, base, scan);
    std::vector<int64_t> queries(std::min(end * scan.queries, job.num_queries) - begin * scan.queries);
    std::iota(queries.begin(), queries.end(), begin * scan.queries);
    const auto count = static_cast<int64_t>(queries.size());
    for (int64_t i = 0; i < count; i += search.size()) search.search(&queries[i], std::min(search.size(), count - i));
    search.finish();
  });
}

// float64 is for checks: every distance by differences.
inline void search_features(const SearchJob<double>& job) {
  const int64_t k = std::min(job.k, job.num_base);
  std::vector<int32_t> rows(job.num_base);
  std::iota(rows.begin(), rows.end(), 0);
  at::parallel_for(0, job.num_queries, /*grain_size=*/16, [&](int64_t begin, int64_t end) {
    Candidates<double> found;
    std::vector<double> distances(job.num_base);
    for (int64_t q = begin; q < end; ++q) {
      found.start(k, std::max<int64_t>(k, 64));
      distances_to(job.query_row(q), job.base, job.channels, rows.data(), job.num_base, distances.data());
      for (int64_t i = 0; i < job.num_base; ++i)
        if (distances[i] <= found.bound()) found.push(distances[i], static_cast<int32_t>(i));
      found.finish();
      job.write(q, found.values(), found.rows(), found.count());
    }
  });
}

}  // namespace pcdet::cpu
