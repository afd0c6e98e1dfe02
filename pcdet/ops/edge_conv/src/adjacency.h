// Who meets whom in a graph of G centres with K neighbours each among M base rows, read from either side.
#pragma once

#include <pcdet/check.h>

namespace pcdet::PCDET_BACKEND {

// A row and its partners: a centre and its neighbours, or a base row and the centres that have it for a neighbour.
// Whatever the tables hold, no partner outside the other side is ever given.
struct Adjacency {
  const int32_t* list;   // partners (centres: K each, -1 where missing), or the edges at base rows (sorted by base row)
  const int32_t* start;  // (rows + 1,): where a row's part of the list starts; null: K each
  int64_t rows, k, partners, edges;

  PCDET_HD int64_t begin(int64_t row) const { return start ? clamped(start[row]) : row * k; }
  PCDET_HD int64_t end(int64_t row) const { return start ? clamped(start[row + 1]) : (row + 1) * k; }
  // The partner at a place of the list, or -1.
  PCDET_HD int64_t partner(int64_t at) const {
    const int32_t entry = list[at];
    const int32_t one = start && entry >= 0 ? entry / static_cast<int32_t>(k) : entry;  // -1 / k would be 0
    return static_cast<uint64_t>(one) < static_cast<uint64_t>(partners) ? one : -1;
  }
  // Which of the G * K edges that is.
  PCDET_HD int64_t edge(int64_t at) const { return start ? list[at] : at; }

 private:
  PCDET_HD int64_t clamped(int64_t at) const { return at < 0 ? 0 : at > edges ? edges : at; }
};

// ReLU for a floor of 0, nothing for a floor of -infinity; a NaN stays one.
template <typename T>
PCDET_HD T raised_to(T floor, T x) {
  return x < floor ? floor : x;
}

template <typename T>
T floor_of(bool relu) {
  return relu ? T(0) : -std::numeric_limits<T>::infinity();
}

inline void check_graph(const at::Tensor& idx, const at::Tensor& rows) {
  TORCH_CHECK_VALUE(idx.dim() == 2 && idx.scalar_type() == at::kInt && idx.device() == rows.device(),
                    "idx must have shape (G, K), dtype int32 and be on ", rows.device(), ", got ", idx.sizes(), ", ",
                    idx.scalar_type(), " on ", idx.device());
  TORCH_CHECK_VALUE(idx.numel() <= std::numeric_limits<int32_t>::max(), "idx must hold fewer than 2^31 edges, got ",
                    idx.numel());
}

// The graph from its centres' side.
inline Adjacency neighbours_of(const at::Tensor& idx, int64_t num_base) {  // contiguous
  return {idx.const_data_ptr<int32_t>(), nullptr, idx.size(0), idx.size(1), num_base, idx.numel()};
}

// The graph from its base rows' side, as edge_transpose gives it.
inline Adjacency centres_of(const at::Tensor& idx, const at::Tensor& start, const at::Tensor& edge) {  // contiguous
  return {edge.const_data_ptr<int32_t>(),
          start.const_data_ptr<int32_t>(),
          start.size(0) - 1,
          idx.size(1),
          idx.size(0),
          idx.numel()};
}

inline void check_transpose(const at::Tensor& idx, int64_t num_base, const at::Tensor& start, const at::Tensor& edge) {
  TORCH_CHECK_VALUE(start.dim() == 1 && start.size(0) == num_base + 1 && edge.dim() == 1 && edge.size(0) == idx.numel(),
                    "start and edge must have shapes (", num_base + 1, ",) and (", idx.numel(),
                    ",), as edge_transpose gives them, got ", start.sizes(), " and ", edge.sizes());
  TORCH_CHECK_VALUE(start.scalar_type() == at::kInt && edge.scalar_type() == at::kInt &&
                        start.device() == idx.device() && edge.device() == idx.device(),
                    "start and edge must be int32 on ", idx.device());
}

// base (M, C), query (G, C), idx (G, K).
inline void check_terms(const at::Tensor& base, const at::Tensor& query, const at::Tensor& idx) {
  TORCH_CHECK_VALUE(base.dim() == 2 && query.dim() == 2 && base.size(1) == query.size(1),
                    "base and query must have shapes (M, C) and (G, C), got ", base.sizes(), " and ", query.sizes());
  check_float("base", base);
  check_same_kind("base", base, "query", query);
  check_graph(idx, base);
  TORCH_CHECK_VALUE(idx.size(0) == query.size(0), "idx must have one row for each of the ", query.size(0),
                    " rows of query, got ", idx.size(0));
}

}  // namespace pcdet::PCDET_BACKEND
