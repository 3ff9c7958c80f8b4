// SPDX-License-Identifier: MIT
// BiasView: a borrowed bias of a linear map.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/view.hpp"

#include <concepts>

#include "mole/core/macros_off.hpp"

namespace mole {

/// One number per output, contiguous in memory, or no bias at all. Converts from anything with data() and size():
/// std::vector, std::span, an Eigen vector, a mole::Matrix or View of one row.
/// Throws Error(shape) for a matrix that is neither a row nor a column, and for numbers that are not neighbors in
/// memory.
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
    if constexpr (requires { v.rows(), v.cols(); }) {
      require(size_ == 0 || v.rows() == 1 || v.cols() == 1, ErrorCode::shape,
              "BiasView: expected a row or a column, found [", v.rows(), " x ", v.cols(), "]");
      require_equal(ErrorCode::shape, "BiasView: distance of the bias's numbers", 1, distance(v));
    }
  }

  Index size() const { return size_; }
  bool empty() const { return size_ == 0; }
  /// As a row [1 x O]; an empty view if there is no bias.
  View<const T> row() const { return empty() ? View<const T>() : View<const T>(data_, 1, size_); }

 private:
  /// From one number of a row or column to the next.
  static Index distance(const auto& v) {
    if (v.size() <= 1) return 1;
    if constexpr (requires { v.outerStride(); })
      return (v.rows() == 1) == bool(v.IsRowMajor) ? Index(v.innerStride()) : Index(v.outerStride());
    else if constexpr (requires { v.stride(); })
      return v.rows() == 1 ? 1 : v.stride();
    else
      return 1;
  }

  const T* data_ = nullptr;
  Index size_ = 0;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
