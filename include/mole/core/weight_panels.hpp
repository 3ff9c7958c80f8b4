// SPDX-License-Identifier: MIT
// WeightPanels: a weight packed into panels, in the order in which matrix products read it.
#pragma once

#include "mole/core/checked_size.hpp"
#include "mole/core/view.hpp"

#include <memory_resource>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A packed weight [rows x cols] that is owned elsewhere. Panel p holds `width` rows from p * width on, interleaved:
/// for each column, the numbers of all these rows; rows beyond the last are zeros.
///
///   data [panels][cols][width], aligned to 64 bytes
template <class T>
class PanelView {
 public:
  using Scalar = std::remove_const_t<T>;
  static constexpr Index width = panel_width<Scalar>;

  PanelView() = default;
  PanelView(T* data, Index rows, Index cols) : data_(data), rows_(rows), cols_(cols) {}

  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  Index panels() const { return (rows_ + width - 1) / width; }
  Index stride() const { return cols_ * width; }  ///< elements from one panel to the next
  T* panel(Index p) const { return data_ + p * stride(); }

  T& operator()(Index row, Index col) const {
    MOLE_ASSERT(row >= 0 && row < rows_ && col >= 0 && col < cols_);
    return panel(row / width)[col * width + row % width];
  }

  explicit operator bool() const { return data_ != nullptr; }

 private:
  T* data_ = nullptr;
  Index rows_ = 0, cols_ = 0;
};

/// Owned panels: as much memory as the weight with its rows rounded up to whole panels. Copies use the default
/// resource.
template <class T>
class WeightPanels {
 public:
  WeightPanels() = default;

  /// Packs a weight [rows x cols], ...
  static WeightPanels of(View<const T> weight, std::pmr::memory_resource* memory = std::pmr::get_default_resource()) {
    return WeightPanels(weight.rows(), weight.cols(), memory, [&](Index row, Index col) { return weight(row, col); });
  }
  /// ... or its transpose.
  static WeightPanels of_transposed(View<const T> weight,
                                    std::pmr::memory_resource* memory = std::pmr::get_default_resource()) {
    return WeightPanels(weight.cols(), weight.rows(), memory, [&](Index row, Index col) { return weight(col, row); });
  }

  static std::size_t bytes_for(Index rows, Index cols) {
    const PanelView<T> shape(nullptr, rows, cols);
    return std::size_t(checked_product("WeightPanels", shape.panels(), cols, shape.width, Index(sizeof(T))));
  }

  PanelView<const T> view() const { return {lines_.empty() ? nullptr : lines_.front().elements, rows_, cols_}; }

 private:
  struct alignas(64) Line {
    T elements[64 / sizeof(T)];
  };

  template <class Element>
  WeightPanels(Index rows, Index cols, std::pmr::memory_resource* memory, Element element)
      : lines_(bytes_for(rows, cols) / sizeof(Line), memory), rows_(rows), cols_(cols) {
    if (lines_.empty()) return;
    const PanelView<T> view(lines_.front().elements, rows, cols);
    for (Index p = 0; p < view.panels(); ++p) {
      const Index first = p * view.width, count = std::min(view.width, rows - first);
      for (Index col = 0; col < cols; ++col)
        for (Index j = 0; j < count; ++j) view.panel(p)[col * view.width + j] = element(first + j, col);
    }
  }

  std::pmr::vector<Line> lines_;
  Index rows_ = 0, cols_ = 0;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
