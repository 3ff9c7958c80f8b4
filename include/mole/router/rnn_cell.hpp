// SPDX-License-Identifier: MIT
// RnnCell: a plain recurrent unit, the smaller memory that the layers of a recurrent router may share.
#pragma once

#include "mole/core/call.hpp"
#include "mole/core/error.hpp"
#include "mole/core/linear_parameters.hpp"
#include "mole/core/parameters.hpp"
#include "mole/core/random.hpp"
#include "mole/router/cell_loops.hpp"

#include <algorithm>
#include <cmath>
#include <random>
#include <string_view>

#include "mole/core/macros_off.hpp"

namespace mole {

/// h' = tanh(u W_i^T + b_i + h W_h^T + b_h)
///
///   u [N x I], h and h' [N x H], input.weight [H x I], hidden.weight [H x H], both with a bias [1 x H]
///
/// A third of the parameters and of the work of a GruCell, in whose place it stands: owned, trained and saved as that
/// one is, initialized as torch.nn.RNNCell. Throws Error(option) for sizes below 1.
/// Source: Elman 1990; for routers, Qiu et al. 2024 (RMoE), arXiv:2408.06793, as released in qiuzh20/RMoE.
template <class T>
class RnnCell {
 public:
  using Scalar = T;

  struct Options {
    Index in = 0;
    Index width = 0;  ///< size H of the state
  };

  struct Parameters {
    LinearParameters<T> input, hidden;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      for_each_tensor_within<LinearParameters<T>>("input", f, p.input...);
      for_each_tensor_within<LinearParameters<T>>("hidden", f, p.hidden...);
    }
  };

  /// Written by forward() for backward().
  struct Scratch {
    View<T> state, hidden;  // [tokens x H], h' and what comes from h alone
    View<T> d;              // [tokens x H], before tanh
  };

  template <std::uniform_random_bit_generator Generator>
  RnnCell(const Options& options, Generator& generator) {
    require(options.in >= 1 && options.width >= 1, ErrorCode::option,
            "RnnCell: expected in and width of at least 1, found in = ", options.in, ", width = ", options.width);
    parameters_ = {{Matrix<T>(options.width, options.in), Matrix<T>(1, options.width)},
                   {Matrix<T>(options.width, options.width), Matrix<T>(1, options.width)}};
    const double bound = 1 / std::sqrt(double(options.width));
    Parameters::for_each_tensor(
        [&](std::string_view, Matrix<T>& tensor) { fill_uniform(tensor.view(), bound, generator); }, parameters_);
  }

  void check_sizes() const {
    for (const LinearParameters<T>* half : {&parameters_.input, &parameters_.hidden}) {
      half->check_sizes("RnnCell");
      require_equal(ErrorCode::shape, "RnnCell: rows of a weight", width(), half->weight.rows());
    }
  }

  Index in() const { return parameters_.input.weight.cols(); }
  Index width() const { return parameters_.hidden.weight.cols(); }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }
  Parameters gradients() const { return zeros_like(parameters_); }

  /// Calls f(name, parameter, other...) with one View per tensor, for the parameters and each of `others`.
  template <class F, class... Others>
  void for_each_tensor(F&& f, Others&... others) {
    detail::for_each_view<Parameters>(f, parameters_, others...);
  }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    const auto each = [&] { return arena.matrix<T>(size.tokens, width()); };
    return {each(), each(), each()};
  }

  /// before = h, an empty view for zeros; after = h', in memory other than `before`.
  void forward(View<const T> u, View<const T> before, View<T> after, auto call) const {
    const View<T> state = call.scratch.state.top(u.rows()), hidden = call.scratch.hidden.top(u.rows());
    call.execution.linear(u, parameters_.input.weights(), state);
    if (before)
      call.execution.linear(before, parameters_.hidden.weights(), hidden);
    else
      for (Index t = 0; t < hidden.rows(); ++t)
        std::ranges::copy(parameters_.hidden.bias.elements(), hidden.row_data(t));
    detail::for_each_state_of_cell<T>(u.rows(), width(), call.execution, [&](Index token, const auto& loops) {
      using std::tanh;
      const auto tanh_of_sum = [](const auto& a, const auto& b) { return tanh(a + b); };
      loops.set(state.row(token), tanh_of_sum, state.row(token), hidden.row(token));
    });
    copy<T>(state, after);
  }

  /// From d_after, the gradient of h', after forward() on the same scratch:   d = d_after (1 - h'^2),
  ///   d_u += d W_i,   d_before += d W_h.   d_u and d_before may be empty views.
  void backward(View<const T> u, View<const T> before, View<const T> d_after, View<T> d_u, View<T> d_before,
                Parameters& gradients, auto call) const {
    const View<T> d = call.scratch.d.top(u.rows());
    detail::for_each_state_of_cell<T>(u.rows(), width(), call.execution, [&](Index token, const auto& loops) {
      const auto of_tanh = [](const auto& d_h, const auto& h) { return d_h * (T(1) - h * h); };
      const std::span<const T> of_token = d_after.row(token);
      if (std::ranges::all_of(of_token, [](T number) { return number == 0; }))  // what it holds may be NaN
        std::ranges::fill(d.row(token), T(0));
      else
        loops.set(d.row(token), of_tanh, of_token, call.scratch.state.row(token));
    });
    gradients.input.add_gradients(u, d, call.execution);
    gradients.hidden.add_gradients(before, d, call.execution);
    if (d_u) call.execution.product_nn(View<const T>(d), parameters_.input.weight, d_u);
    if (d_before) call.execution.product_nn(View<const T>(d), parameters_.hidden.weight, d_before);
  }

 private:
  Parameters parameters_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
