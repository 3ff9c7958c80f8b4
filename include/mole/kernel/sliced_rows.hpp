// SPDX-License-Identifier: MIT
// SlicedRows: a sparse matrix in slices of rows, in the order in which products read it.
#pragma once

#include "mole/core/config.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole::kernel {

/// A sparse matrix [rows x cols] for vectors of rows, 64 bytes wide whatever the instruction set.
///
/// A slice is `lanes` rows, a block `lanes` columns. Stride w of a slice covers blocks w and w + 1 and has some slots,
/// each with one element of every row; a row without further elements has a 0 in column `padding`. An element of block
/// w + 1 may wait for the next stride, which evens out the rows: at a quarter of nonzeros 81 % of all slots are filled,
/// and 65 % with blocks that do not overlap. The elements of a row keep the order of their columns.
///
/// O(nonzeros) time and memory: about 10 bytes per nonzero of float.
/// Source: sliced ELLPACK, Kreutzer et al. 2014, arXiv:1307.6209; the overlap is ours.
template <class T>
class SlicedRows {
 public:
  static constexpr Index lanes = Index(64 / sizeof(T));
  static constexpr int padding = -1;  // its last bits, all that look_up() uses, name a column of any stride

  SlicedRows() = default;
  /// Row r has the elements begin[r] ... begin[r + 1] - 1, their columns ascending.
  SlicedRows(Index cols, std::span<const int> begin, std::span<const int> column, std::span<const T> value)
      : rows_(Index(begin.size()) - 1), cols_(cols) {
    for (Index row = 0; row < rows_; row += lanes) append_slice(row, begin, column, value);
  }

  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  Index slots() const { return Index(value_.size()) / lanes; }
  /// Strides per slice.
  Index strides() const { return std::max<Index>(1, (cols_ + lanes - 1) / lanes - 1); }

  Index first_slot(Index slice) const { return first_slot_[std::size_t(slice)]; }
  const int* count() const { return count_.data(); }    ///< slots of each stride [slices][strides]
  const int* column() const { return column_.data(); }  ///< [slots][lanes]
  const T* value() const { return value_.data(); }      ///< [slots][lanes]

  /// Calls f(column, value) for the elements of a row, in the order of their columns.
  template <class F>
  void for_each(Index row, F f) const {
    const Index slice = row / lanes;
    const Index end = std::size_t(slice) + 1 < first_slot_.size() ? first_slot(slice + 1) : slots();
    for (Index slot = first_slot(slice); slot < end; ++slot) {
      const auto at = std::size_t(slot * lanes + row % lanes);
      if (column_[at] != padding) f(Index(column_[at]), value_[at]);
    }
  }

 private:
  void append_slice(Index row, std::span<const int> begin, std::span<const int> column, std::span<const T> value) {
    const Index count = std::min(lanes, rows_ - row);
    first_slot_.push_back(slots());
    std::array<int, std::size_t(lanes)> next;
    std::copy_n(begin.begin() + row, count, next.begin());
    const auto before = [&](Index lane, int at, Index end) {
      return at < begin[std::size_t(row + lane) + 1] && column[std::size_t(at)] < end;
    };
    for (Index w = 0; w < strides(); ++w) {
      const Index known = (w + 2) * lanes, due = w + 1 < strides() ? (w + 1) * lanes : known;
      int most = 0;
      for (Index lane = 0; lane < count; ++lane) {
        int at = next[std::size_t(lane)];
        while (before(lane, at, due)) ++at;
        most = std::max(most, at - next[std::size_t(lane)]);
      }
      count_.push_back(most);
      for (int slot = 0; slot < most; ++slot)
        for (Index lane = 0; lane < lanes; ++lane) {
          const bool filled = lane < count && before(lane, next[std::size_t(lane)], known);
          const auto at = filled ? std::size_t(next[std::size_t(lane)]++) : 0;
          column_.push_back(filled ? column[at] : padding);
          value_.push_back(filled ? value[at] : T(0));
        }
    }
  }

  Index rows_ = 0, cols_ = 0;
  std::vector<Index> first_slot_;
  std::vector<int> count_, column_;
  std::vector<T> value_;
};

}  // namespace mole::kernel

#include "mole/core/macros_on.hpp"
