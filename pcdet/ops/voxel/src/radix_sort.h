// Rows sorted by a key, rows of equal keys in their order, digit by digit. CPU only.
#pragma once

#include <pcdet/backend.h>

#include <bit>
#include <utility>
#include <vector>

namespace pcdet::PCDET_BACKEND {

template <typename Key>
struct KeyedRow {
  Key key;
  int32_t row;
};

// Moves all entries to `to`, sorted by `bits` bits of their keys from bit `shift` on. Each part of the entries has its
// own column of counters, so that parts are placed side by side and the order does not depend on their number.
template <typename Key>
void sort_by_digit(const std::vector<KeyedRow<Key>>& from, std::vector<KeyedRow<Key>>& to, int shift, int bits) {
  const auto n = static_cast<int64_t>(from.size());
  const int64_t digits = int64_t(1) << bits;
  const int64_t parts = std::clamp<int64_t>(n / (16 * kItemsPerThread), 1, std::min(at::get_num_threads(), 16));
  const auto digit_of = [&](const KeyedRow<Key>& entry) {
    return static_cast<int64_t>(entry.key >> shift) & (digits - 1);
  };
  std::vector<int64_t> place(digits * parts, 0);
  at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part)
      for (int64_t i = n * part / parts; i < n * (part + 1) / parts; ++i) ++place[part * digits + digit_of(from[i])];
  });
  int64_t total = 0;
  for (int64_t digit = 0; digit < digits; ++digit)
    for (int64_t part = 0; part < parts; ++part) total += std::exchange(place[part * digits + digit], total);
  at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part)
      for (int64_t i = n * part / parts; i < n * (part + 1) / parts; ++i)
        to[place[part * digits + digit_of(from[i])]++] = from[i];
  });
}

// Sorts entries whose keys are below `limit`.
template <typename Key>
void sort_rows(std::vector<KeyedRow<Key>>& entries, int64_t limit) {
  constexpr int kMostBits = 11;  // of a digit, whose counters then stay in the first cache
  const int bits = std::bit_width(static_cast<uint64_t>(std::max<int64_t>(limit - 1, 1)));
  const int passes = (bits + kMostBits - 1) / kMostBits, width = (bits + passes - 1) / passes;
  std::vector<KeyedRow<Key>> other(entries.size());
  for (int pass = 0; pass < passes; ++pass) {
    sort_by_digit(entries, other, pass * width, width);
    entries.swap(other);
  }
}

}  // namespace pcdet::PCDET_BACKEND
