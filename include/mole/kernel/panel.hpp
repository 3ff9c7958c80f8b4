// SPDX-License-Identifier: MIT
// A few columns of a matrix side by side, in the order in which a tile reads them.
#pragma once

#include "mole/kernel/outer_products.hpp"

namespace mole::kernel {

/// Up to `depth` rows of up to `width` columns, packed on the stack and padded with zeros: 32 KiB at most, so that it
/// stays in the first cache while every row of the other operand passes by.
template <class Arch, class T>
class Panel {
 public:
  static constexpr Index width = OuterProducts<Arch, T>::width;
  static constexpr Index depth = Index(32768 / sizeof(T)) / width;

  /// panel[k][j] = row k of `source`, column j.
  void pack(const T* source, Index stride, Index rows, Index cols) {
    for (Index k = 0; k < rows; ++k) {
      T* const to = elements_ + k * width;
      std::copy_n(source + k * stride, cols, to);
      std::fill(to + cols, to + width, T(0));
    }
  }

  /// panel[k][j] = row j of `source`, column k: `rows` columns of `cols` rows.
  void pack_transposed(const T* source, Index stride, Index rows, Index cols) {
    for (Index j = 0; j < cols; ++j)
      for (Index k = 0; k < rows; ++k) elements_[k * width + j] = source[j * stride + k];
    for (Index k = 0; k < rows; ++k) std::fill(elements_ + k * width + cols, elements_ + (k + 1) * width, T(0));
  }

  StridedRows<T> rows() const { return {elements_, width}; }

 private:
  alignas(64) T elements_[std::size_t(depth * width)];
};

}  // namespace mole::kernel
