// SPDX-License-Identifier: MIT
// view_of(): what a tensor of libtorch is to mole, and which tensors it takes.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/view.hpp"

#include <torch/types.h>

#include <sstream>
#include <string>
#include <string_view>

#include "mole/core/macros_off.hpp"

namespace mole::detail {

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
  fail(ErrorCode::option, {"TorchLinear: expected ", what, " of ", torch::toString(torch_type<T>), " on the CPU, found ",
                           torch::toString(tensor.scalar_type()), " on ", tensor.device().str(), ", ",
                           text_of(tensor.layout())});
}

/// Are the numbers of each row neighbors, and do rows not overlap?
inline bool has_rows(const torch::Tensor& matrix) {
  const bool neighbors = matrix.size(1) <= 1 || matrix.stride(1) == 1;
  return neighbors && (matrix.size(0) <= 1 || matrix.stride(0) >= matrix.size(1)) && !matrix.is_neg();
}

/// Of a matrix that has_rows().
template <class T>
View<T> view_of(const torch::Tensor& matrix) {
  const Index rows = matrix.size(0), cols = matrix.size(1);
  return {matrix.data_ptr<std::remove_const_t<T>>(), rows, cols, rows <= 1 ? cols : Index(matrix.stride(0))};
}

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

}  // namespace mole::detail

#include "mole/core/macros_on.hpp"
