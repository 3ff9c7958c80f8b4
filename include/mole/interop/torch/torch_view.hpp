// SPDX-License-Identifier: MIT
// torch_view(), torch_bias(): what tensors of libtorch are to mole.
#pragma once

#include "mole/core/bias_view.hpp"
#include "mole/core/error.hpp"
#include "mole/core/view.hpp"

#include <torch/types.h>

#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole {

namespace detail {
template <class T>
inline constexpr torch::ScalarType torch_type = c10::CppTypeToScalarType<T>::value;

inline std::string text_of(const auto& printable) {
  std::ostringstream text;
  text << printable;
  return text.str();
}

/// Throws Error(option) unless the memory of `tensor` holds numbers of type T, on the CPU.
template <class T>
void require_tensor_of(std::string_view what, const torch::Tensor& tensor) {
  require(tensor.defined(), ErrorCode::option, "TorchLinear: expected ", what, ", found an undefined tensor");
  if (tensor.scalar_type() == torch_type<T> && tensor.device().is_cpu() && tensor.layout() == torch::kStrided) return;
  fail(ErrorCode::option,
       {"TorchLinear: expected ", what, " of ", torch::toString(torch_type<T>), " on the CPU, found ",
        torch::toString(tensor.scalar_type()), " on ", tensor.device().str(), ", ", text_of(tensor.layout())});
}

/// Are the numbers of each row neighbors, and do rows not overlap?
inline bool has_rows(const torch::Tensor& matrix) {
  const bool neighbors = matrix.size(1) <= 1 || matrix.stride(1) == 1;
  return neighbors && (matrix.size(0) <= 1 || matrix.stride(0) >= matrix.size(1)) && !matrix.is_neg();
}

}  // namespace detail

/// The numbers of a matrix, where they are. Throws Error(option) for another type than T, another device than the CPU,
/// and an undefined tensor; Error(shape) for a tensor that is no matrix, or whose rows overlap or are not neighbors.
template <class T>
View<T> torch_view(const torch::Tensor& matrix) {
  using Number = std::remove_const_t<T>;
  detail::require_tensor_of<Number>("a matrix", matrix);
  require(matrix.dim() == 2 && detail::has_rows(matrix), ErrorCode::shape,
          "torch_view: expected a matrix with rows of neighbors, found ", detail::text_of(matrix.sizes()),
          " at distances ", detail::text_of(matrix.strides()));
  const Index rows = matrix.size(0), cols = matrix.size(1);
  return {matrix.data_ptr<Number>(), rows, cols, rows <= 1 ? cols : Index(matrix.stride(0))};
}

/// The same of a bias, which may be undefined: there is none.
template <class T>
BiasView<T> torch_bias(const torch::Tensor& bias) {
  if (!bias.defined()) return {};
  detail::require_tensor_of<T>("a bias", bias);
  require(bias.dim() == 1 && bias.is_contiguous(), ErrorCode::shape,
          "torch_bias: expected numbers without gaps, found ", detail::text_of(bias.sizes()), " at distances ",
          detail::text_of(bias.strides()));
  return std::span<const T>(bias.data_ptr<T>(), std::size_t(bias.numel()));
}

namespace detail {
/// x [..., cols] as rows [N x cols], part of the graph of x. Copies what has no such rows: a transpose, an expanded
/// tensor, every second column.
template <class T>
torch::Tensor rows_of(std::string_view what, const torch::Tensor& x, Index cols) {
  require_tensor_of<T>(what, x);
  require(x.dim() >= 1 && x.size(-1) == cols, ErrorCode::shape, "TorchLinear: expected ", what, " with rows of ", cols,
          " numbers, found ", text_of(x.sizes()));
  const torch::Tensor rows = x.dim() == 2 ? x : x.reshape({-1, cols});
  return has_rows(rows) ? rows : rows.resolve_neg().contiguous();
}

}  // namespace detail

}  // namespace mole

#include "mole/core/macros_on.hpp"
