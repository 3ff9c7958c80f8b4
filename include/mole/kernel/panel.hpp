// SPDX-License-Identifier: MIT
// Panel: a few columns of a matrix interleaved, in the order in which a tile reads them.
#pragma once

#include "mole/kernel/outer_products.hpp"
#include "mole/kernel/transpose.hpp"

#include "mole/core/macros_off.hpp"

namespace mole::kernel {

/// Up to `depth` rows of up to `width` columns, packed on the stack and padded with zeros: 32 KiB at most, so that it
/// stays in L1 while every row of the other operand uses it.
template <class Arch, class T>
class Panel {
 public:
  static constexpr Index width = panel_width<T>;
  static constexpr Index depth = Index(32768 / sizeof(T)) / width;

  /// panel[k][j] = row k of `source`, column j.
  void pack(const T* source, Index stride, Index rows, Index cols) {
    for (Index k = 0; k < rows; ++k) {
      T* const to = elements_ + k * width;
      std::copy_n(source + k * stride, cols, to);
      std::fill(to + cols, to + width, T(0));
    }
  }

  /// panel[first + k][j] = row j of `source`, column k: `rows` columns of `cols` rows.
  void pack_transposed(const T* source, Index stride, Index rows, Index cols, Index first = 0) {
    T* const to = elements_ + first * width;
    Transpose<Arch, T>{}(source, stride, cols, rows, to, width);
    for (Index k = 0; k < rows; ++k) std::fill(to + k * width + cols, to + (k + 1) * width, T(0));
  }

  StridedRows<const T> rows() const { return {elements_, width}; }

 private:
  alignas(64) T elements_[std::size_t(depth * width)];
};

}  // namespace mole::kernel

#include "mole/core/macros_on.hpp"
