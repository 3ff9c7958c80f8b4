// SPDX-License-Identifier: MIT
// ParameterLayout: where the tensors of a layer stand in one flat array.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/view.hpp"

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The tensors of a layer, one after the other without gaps, in the order and under the names of for_each_tensor().
struct ParameterLayout {
  struct Tensor {
    std::string name;
    Index rows, cols;
    Index first;  ///< where it begins in the array
  };

  std::vector<Tensor> tensors;
  Index size = 0;  ///< numbers of the array

  /// The tensor's part of an array of `size` numbers. Throws Error(option) for a name that the layer does not have.
  template <class T>
  View<T> of(std::string_view name, std::span<T> array) const {
    const auto found = std::ranges::find(tensors, name, &Tensor::name);
    require(found != tensors.end(), ErrorCode::option, "ParameterLayout: expected a tensor of the layer, found ", name);
    return {array.data() + found->first, found->rows, found->cols};
  }
};

/// Of a layer, an AnyLinear, or a ModelRouting. Frozen tensors are in it, too, for another choice of what learns.
template <class Layer>
ParameterLayout parameter_layout(Layer& layer) {
  ParameterLayout layout;
  layer.for_each_tensor([&](std::string_view name, auto tensor, auto...) {
    layout.tensors.push_back({std::string(name), tensor.rows(), tensor.cols(), layout.size});
    layout.size += tensor.rows() * tensor.cols();
  });
  return layout;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
