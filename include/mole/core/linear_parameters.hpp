// SPDX-License-Identifier: MIT
// LinearParameters: the weight and optional bias of a linear map.
#pragma once

#include "mole/core/add_outer_products.hpp"
#include "mole/core/linear_weights.hpp"
#include "mole/core/matrix.hpp"

#include <string_view>

#include "mole/core/macros_off.hpp"

namespace mole {

/// weight [out x in], bias [1 x out] or empty.
template <class T>
struct LinearParameters {
  Matrix<T> weight, bias;

  template <class F, class... P>
  static void for_each_tensor(F&& f, P&... p) {
    f("weight", p.weight...);
    f("bias", p.bias...);
  }

  /// Throws Error(shape), naming `owner`, for a bias of another size.
  void check_sizes(std::string_view owner) const {
    if (!bias.empty())
      require(bias.rows() == 1 && bias.cols() == weight.rows(), ErrorCode::shape, owner, ": expected a bias of [1 x ",
              weight.rows(), "], found [", bias.rows(), " x ", bias.cols(), "]");
  }

  /// The map, for an execution: out = in W^T + b.
  LinearWeights<T> weights() const { return {.weight = weight.view(), .bias = bias.view()}; }

  /// Adds gradients to this object:   weight += d_out^T in,   bias += sum over tokens of d_out.   Frozen tensors stay.
  ///   in [N x I], an empty view for zeros, d_out [N x O]
  void add_gradients(View<const T> in, View<const T> d_out, const auto& execution) {
    if (in && !weight.empty()) add_outer_products(d_out, in, weight.view(), execution);
    if (bias.empty()) return;
    for (Index n = 0; n < d_out.rows(); ++n)
      for (Index o = 0; o < d_out.cols(); ++o) bias(0, o) += d_out(n, o);
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
