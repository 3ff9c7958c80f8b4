// SPDX-License-Identifier: MIT
// BiasView: a borrowed bias of a linear map.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/view.hpp"

#include <concepts>

namespace mole {

/// One number per output, contiguous in memory, or no bias at all. Converts from anything with data() and size():
/// std::vector, std::span, an Eigen vector, a mole::Matrix or View of one row.
/// Throws Error(shape) for a View of several rows or of elements that are not contiguous.
template <class T>
class BiasView {
 public:
  BiasView() = default;
  template <class V>
  requires(!std::same_as<V, BiasView> &&
           requires(const V& v) {
             { v.data() } -> std::convertible_to<const T*>;
             { v.size() } -> std::convertible_to<Index>;
           }) BiasView(const V& v)
      : data_(v.data()), size_(Index(v.size())) {
    if constexpr (std::same_as<V, View<T>> || std::same_as<V, View<const T>>)
      if (v) require_equal(ErrorCode::shape, "BiasView: rows of the bias", 1, v.rows());
    if constexpr (requires { v.innerStride(); })
      require_equal(ErrorCode::shape, "BiasView: distance of the bias's numbers", 1, Index(v.innerStride()));
  }

  Index size() const { return size_; }
  bool empty() const { return size_ == 0; }
  /// As a row [1 x O]; an empty view if there is no bias.
  View<const T> row() const { return empty() ? View<const T>() : View<const T>(data_, 1, size_); }

 private:
  const T* data_ = nullptr;
  Index size_ = 0;
};

}  // namespace mole
