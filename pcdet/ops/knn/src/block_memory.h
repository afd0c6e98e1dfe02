// What a block of the GPU's search holds in shared memory, and how many queries its warps may therefore take. Plain
// C++: a test compiles it without CUDA.
#pragma once

#include <pcdet/warp.h>

#include <algorithm>
#include <bit>
#include <cstdint>

namespace pcdet::PCDET_BACKEND {

constexpr int kWarps = 8;
constexpr int kRowsPerLane = 4;
constexpr int kTileRows = kLanes * kRowsPerLane;
constexpr int kTileChannels = 32;
constexpr int kQueryChannels = 64;  // queries of up to so many channels are loaded once
constexpr int kMostNeighbours = 512;

// Keys in the list of a query: a power of two with room for k, and for one more from each lane.
constexpr int64_t list_length(int64_t k) {
  return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(k + kLanes, 2 * k))));
}

// Bytes of a block's lists, where each warp takes `per_warp` queries.
constexpr int64_t list_bytes(int64_t k, int64_t per_warp) {
  return kWarps * per_warp * list_length(k) * static_cast<int64_t>(sizeof(uint64_t));
}

// Bytes of its tiles of queries and of base rows, the latter with one more row: no two lanes meet in a bank.
constexpr int64_t tile_bytes(int64_t per_warp) {
  constexpr auto kFloat = static_cast<int64_t>(sizeof(float));
  return kWarps * per_warp * kQueryChannels * kFloat + kTileChannels * (kTileRows + 1) * kFloat;
}

// 4, 2 or 1 queries a warp: the most with 64 KiB of lists, more of which would leave a processor too few blocks, and
// with no more shared memory in all than `limit`, what the card gives a block. 0 if one query is too many: Turing has
// 64 KiB.
constexpr int queries_a_warp(int64_t k, int64_t limit) {
  constexpr int64_t kMostListBytes = 64 * 1024;
  for (int per_warp = 4; per_warp > 0; per_warp /= 2)
    if (list_bytes(k, per_warp) <= kMostListBytes && list_bytes(k, per_warp) + tile_bytes(per_warp) <= limit)
      return per_warp;
  return 0;
}

// The largest k that a card with this limit can search for.
constexpr int64_t most_neighbours(int64_t limit) {
  int64_t k = kMostNeighbours;
  while (k > 0 && queries_a_warp(k, limit) == 0) --k;
  return k;
}

}  // namespace pcdet::PCDET_BACKEND
