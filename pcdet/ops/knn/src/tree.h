// A k-d tree over points of up to three coordinates, for exact neighbours in space.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "candidates.h"

namespace pcdet::cpu {

constexpr int kDims = 3;  // fewer coordinates are filled up with zeros

template <typename T>
using Place = std::array<T, kDims>;

template <typename T>
class Tree {
 public:
  Tree(const T* rows, int64_t count, int64_t channels) {  // (count, channels)
    std::vector<Item> items(count);
    for (int64_t i = 0; i < count; ++i) {
      items[i].row = static_cast<int32_t>(i);
      for (int d = 0; d < kDims; ++d) items[i].at[d] = d < channels ? rows[i * channels + d] : T(0);
    }
    build(items.data(), count);
  }

  void search(const Place<T>& q, Candidates<T>& found) const {
    if (!nodes_.empty()) descend(0, q, Place<T>{}, T(0), found);
  }

 private:
  struct Item {
    Place<T> at;
    int32_t row;
  };
  struct Node {
    T split;
    int32_t dim;    // -1: a leaf
    int32_t right;  // of an inner node, whose left child follows it; of a leaf: where its points stand
  };

  int32_t build(Item* items, int64_t count) {
    const auto self = static_cast<int32_t>(nodes_.size());
    if (count <= kLeaf) {
      nodes_.push_back({T(0), -1, static_cast<int32_t>(rows_.size())});
      add_leaf(items, count);
      return self;
    }
    Place<T> low = items[0].at, high = low;
    for (int64_t i = 1; i < count; ++i)
      for (int d = 0; d < kDims; ++d) {
        low[d] = std::min(low[d], items[i].at[d]);
        high[d] = std::max(high[d], items[i].at[d]);
      }
    int widest = 0;
    for (int d = 1; d < kDims; ++d)
      if (high[d] - low[d] > high[widest] - low[widest]) widest = d;
    // Full leaves on the left: no leaf but the last is padded.
    const int64_t left = (count / 2 + kLeaf - 1) / kLeaf * kLeaf;
    std::nth_element(items, items + left, items + count,
                     [=](const Item& a, const Item& b) { return a.at[widest] < b.at[widest]; });
    nodes_.push_back({items[left].at[widest], widest, 0});
    build(items, left);
    nodes_[self].right = build(items + left, count - left);
    return self;
  }

  void add_leaf(const Item* items, int64_t count) {
    constexpr T kFar = std::numeric_limits<T>::infinity();
    for (int64_t j = 0; j < kLeaf; ++j) {
      for (int d = 0; d < kDims; ++d) axes_[d].push_back(j < count ? items[j].at[d] : kFar);
      rows_.push_back(j < count ? items[j].row : -1);
    }
  }

  // `offset` is the way from q to the node's cell along each axis, `distance2` its square.
  void descend(int32_t number, const Place<T>& q, Place<T> offset, T distance2, Candidates<T>& found) const {
    const Node& node = nodes_[number];
    if (node.dim < 0) {
      T distances[kLeaf];
      leaf_distances(&axes_[0][node.right], &axes_[1][node.right], &axes_[2][node.right], q.data(), distances);
      for (int64_t j = 0; j < kLeaf; ++j)
        if (distances[j] <= found.bound()) found.push(distances[j], rows_[node.right + j]);
      return;
    }
    const T to_split = q[node.dim] - node.split;
    const int32_t left = number + 1;
    descend(to_split < T(0) ? left : node.right, q, offset, distance2, found);
    const T beyond = distance2 - offset[node.dim] * offset[node.dim] + to_split * to_split;
    constexpr T kSlack = T(1) - T(1e-5);  // more than the rounding of `beyond`
    if (beyond * kSlack > found.bound()) return;
    offset[node.dim] = to_split;
    descend(to_split < T(0) ? node.right : left, q, offset, beyond, found);
  }

  std::vector<Node> nodes_;
  std::array<std::vector<T>, kDims> axes_;  // (leaves * kLeaf,) each
  std::vector<int32_t> rows_;               // (leaves * kLeaf,)
};

}  // namespace pcdet::cpu
