// SPDX-License-Identifier: MIT
// GruCell: a gated recurrent unit, the memory that the layers of a recurrent router share.
#pragma once

#include "mole/core/call.hpp"
#include "mole/core/error.hpp"
#include "mole/core/linear_parameters.hpp"
#include "mole/core/parameters.hpp"
#include "mole/core/random.hpp"
#include "mole/router/cell_loops.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <span>
#include <string_view>

#include "mole/core/macros_off.hpp"

namespace mole {

/// h' = (1 - z) n + z h,   r = sigmoid(u W_ir^T + b_ir + h W_hr^T + b_hr),   z likewise,
///                         n = tanh(u W_in^T + b_in + r (h W_hn^T + b_hn))
///
///   u [N x I], h and h' [N x H], input.weight [3H x I], hidden.weight [3H x H], both with a bias [1 x 3H]
///
/// Rows of the parameters are those of r, of z and of n, as in torch.nn.GRUCell (weight_ih, weight_hh), and are
/// initialized as there: U(-1/sqrt(H), 1/sqrt(H)). One cell serves many layers, so it belongs to none of them: its
/// owner holds its gradients, steps it once and saves it once, with for_each_tensor() as that of a layer.
/// Throws Error(option) for sizes below 1.
/// Source: Cho et al. 2014, arXiv:1406.1078, eq. 5-8, with r applied after the hidden bias as in cuDNN and PyTorch.
template <class T>
class GruCell {
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
    View<T> gates;              // [tokens x 3H], r, z and n
    View<T> hidden;             // [tokens x 3H], from h alone
    View<T> d_gates, d_hidden;  // [tokens x 3H], before the sigmoids and tanh
    std::span<T> none;          // [H], zero: the state before the first layer
  };

  template <std::uniform_random_bit_generator Generator>
  GruCell(const Options& options, Generator& generator) {
    require(options.in >= 1 && options.width >= 1, ErrorCode::option,
            "GruCell: expected in and width of at least 1, found in = ", options.in, ", width = ", options.width);
    const Index rows = 3 * options.width;
    parameters_ = {{Matrix<T>(rows, options.in), Matrix<T>(1, rows)},
                   {Matrix<T>(rows, options.width), Matrix<T>(1, rows)}};
    const double bound = 1 / std::sqrt(double(options.width));
    Parameters::for_each_tensor(
        [&](std::string_view, Matrix<T>& tensor) { fill_uniform(tensor.view(), bound, generator); }, parameters_);
  }

  void check_sizes() const {
    for (const LinearParameters<T>* half : {&parameters_.input, &parameters_.hidden}) {
      half->check_sizes("GruCell");
      require_equal(ErrorCode::shape, "GruCell: rows of a weight", 3 * width(), half->weight.rows());
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
    const auto each = [&] { return arena.matrix<T>(size.tokens, 3 * width()); };
    return {each(), each(), each(), each(), arena.array<T>(width())};
  }

  /// before = h, an empty view for zeros; after = h', in memory other than `before`.
  void forward(View<const T> u, View<const T> before, View<T> after, auto call) const {
    const View<T> gates = call.scratch.gates.top(u.rows()), hidden = call.scratch.hidden.top(u.rows());
    call.execution.linear(u, parameters_.input.weights(), gates);
    if (before)
      call.execution.linear(before, parameters_.hidden.weights(), hidden);
    else
      for (Index t = 0; t < hidden.rows(); ++t)
        std::ranges::copy(parameters_.hidden.bias.elements(), hidden.row_data(t));
    detail::for_each_state_of_cell<T>(u.rows(), width(), call.execution, [&](Index token, const auto& loops) {
      using std::exp, std::tanh;
      const auto sigmoid_of_sum = [](const auto& a, const auto& b) { return T(1) / (T(1) + exp(-(a + b))); };
      const auto candidate = [](const auto& a, const auto& reset, const auto& b) { return tanh(a + reset * b); };
      const auto next = [](const auto& keep, const auto& fresh, const auto& h) { return fresh + keep * (h - fresh); };
      const auto [r, z, n] = thirds(gates.row(token));
      const auto [hidden_r, hidden_z, hidden_n] = thirds(hidden.row(token));
      loops.set(r, sigmoid_of_sum, r, hidden_r);
      loops.set(z, sigmoid_of_sum, z, hidden_z);
      loops.set(n, candidate, n, r, hidden_n);
      loops.set(after.row(token), next, z, n, state(before, token, call.scratch));
    });
  }

  /// From d_after, the gradient of h', after forward() on the same scratch:
  ///   d_n = d_after (1 - z) (1 - n^2)   d_z = d_after (h - n) z (1 - z)   d_r = d_n (h W_hn^T + b_hn) r (1 - r)
  ///   d_u += (d_r, d_z, d_n) W_i        d_before += d_after z + (d_r, d_z, r d_n) W_h
  /// each before its sigmoid or tanh. d_u and d_before may be empty views.
  void backward(View<const T> u, View<const T> before, View<const T> d_after, View<T> d_u, View<T> d_before,
                Parameters& gradients, auto call) const {
    auto& scratch = call.scratch;
    const View<T> d_gates = scratch.d_gates.top(u.rows()), d_hidden = scratch.d_hidden.top(u.rows());
    detail::for_each_state_of_cell<T>(u.rows(), width(), call.execution, [&](Index token, const auto& loops) {
      const auto [r, z, n] = thirds(scratch.gates.row(token));
      const std::span<T> hidden_n = thirds(scratch.hidden.row(token))[2];
      const auto [d_r, d_z, d_n] = thirds(d_gates.row(token));
      const std::span<const T> d = d_after.row(token);
      if (std::ranges::all_of(d, [](T number) { return number == 0; })) {  // nor may what the token holds reach others
        std::ranges::fill(d_gates.row(token), T(0));
        return std::ranges::fill(d_hidden.row(token), T(0)), void();
      }
      const auto one = T(1);
      const auto of_n = [&](const auto& d_h, const auto& keep, const auto& fresh) {
        return d_h * (one - keep) * (one - fresh * fresh);
      };
      const auto of_z = [&](const auto& d_h, const auto& h, const auto& fresh, const auto& keep) {
        return d_h * (h - fresh) * keep * (one - keep);
      };
      const auto of_r = [&](const auto& d_fresh, const auto& of_h, const auto& reset) {
        return d_fresh * of_h * reset * (one - reset);
      };
      loops.set(d_n, of_n, d, z, n);
      loops.set(d_z, of_z, d, state(before, token, scratch), n, z);
      loops.set(d_r, of_r, d_n, hidden_n, r);
      std::copy_n(d_r.data(), 2 * width(), d_hidden.row_data(token));
      const auto product = [](const auto& a, const auto& b) { return a * b; };
      loops.set(thirds(d_hidden.row(token))[2], product, d_n, r);
      if (d_before) loops.add(d_before.row(token), product, d, z);
    });
    gradients.input.add_gradients(u, d_gates, call.execution);
    gradients.hidden.add_gradients(before, d_hidden, call.execution);
    if (d_u) call.execution.product_nn(View<const T>(d_gates), parameters_.input.weight, d_u);
    if (d_before) call.execution.product_nn(View<const T>(d_hidden), parameters_.hidden.weight, d_before);
  }

 private:
  /// The parts of a row of 3H that belong to r, z and n.
  std::array<std::span<T>, 3> thirds(std::span<T> row) const {
    const auto h = std::size_t(width());
    return {row.first(h), row.subspan(h, h), row.last(h)};
  }

  std::span<const T> state(View<const T> before, Index token, const Scratch& scratch) const {
    return before ? before.row(token) : scratch.none;
  }

  Parameters parameters_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
