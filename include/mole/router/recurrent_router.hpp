// SPDX-License-Identifier: MIT
// RecurrentRouter: the router that carries a state per token from layer to layer.
#pragma once

#include "mole/router/gru_cell.hpp"
#include "mole/router/router_policy.hpp"

#include <cmath>
#include <string_view>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// logits = h W_out^T,   h = cell(x W_in^T, h of the previous layer).
///
///   x [N x I], W_in [U x I], h [N x H], W_out [E x H], with U and H the cell's; no biases
///
/// The cell is a GruCell, or an RnnCell:   RecurrentRouter<float, RnnCell<float>>
/// The recurrence runs over the depth of a model, independently for each token. The cell belongs to the model: it is
/// borrowed, must not move, and is not among the router's parameters. The state between layers belongs to the caller:
/// the Carry of a call is put into the workspace before forward and kept until after backward,
///     work.router_scratch.carry = {.in = h_1, .out = h_2, .d_out = d_h_2, .d_in = d_h_1, .d_cell = &d_cell};
/// without one the incoming state is zero, and the outgoing state is not stored.
///
/// W_in and W_out start as those of the usual linear layer. Throws Error(option) for sizes below 1; forward() and
/// backward() throw Error(shape) for a carry that does not fit the tokens.
/// Source: Qiu et al. 2024 (RMoE), arXiv:2408.06793, eq. 4-6; released as qiuzh20/RMoE, with H = 256 instead of the
/// paper's 128.
template <class T, class CellType = GruCell<T>>
class RecurrentRouter {
 public:
  using Scalar = T;
  using Cell = CellType;
  static constexpr bool borrows = true;  // the cell

  struct Options {
    Index in = 0;
    Index experts = 0;  ///< including the extra columns of the gate, if any
  };

  struct Parameters {
    LinearParameters<T> input, output;  // without biases

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      for_each_tensor_within<LinearParameters<T>>("input", f, p.input...);
      for_each_tensor_within<LinearParameters<T>>("output", f, p.output...);
    }
  };

  /// States of the tokens between layers [N x H], and the gradients of both; any may be empty. `in` and `out` must not
  /// share memory. d_in and d_cell accumulate.
  struct Carry {
    View<const T> in = {};                        ///< from the previous layer; empty: zeros
    View<T> out = {};                             ///< after this layer
    View<const T> d_out = {};                     ///< from the following layers; empty: zeros
    View<T> d_in = {};                            ///< for the previous layer
    typename Cell::Parameters* d_cell = nullptr;  ///< null: the cell is frozen
  };

  struct Scratch {
    Carry carry;
    View<T> u, d_u;  // [tokens x U]
    View<T> h, d_h;  // [tokens x H]
    typename Cell::Scratch cell;
  };

  template <std::uniform_random_bit_generator Generator>
  RecurrentRouter(const Options& options, const Cell& cell, Generator& generator) : cell_(&cell) {
    require(options.in >= 1 && options.experts >= 1, ErrorCode::option,
            "RecurrentRouter: expected in and experts of at least 1, found in = ", options.in,
            ", experts = ", options.experts);
    parameters_.input.weight = Matrix<T>(cell.in(), options.in);
    parameters_.output.weight = Matrix<T>(options.experts, cell.width());
    for (LinearParameters<T>* layer : {&parameters_.input, &parameters_.output})
      fill_uniform(layer->weight.view(), 1 / std::sqrt(double(layer->weight.cols())), generator);
  }
  template <class Generator>
  RecurrentRouter(const Options&, Cell&&, Generator&) = delete;  // the cell must outlive the router

  void check_sizes() const {
    cell_->check_sizes();
    parameters_.input.check_sizes("RecurrentRouter: input");
    parameters_.output.check_sizes("RecurrentRouter: output");
    require_equal(ErrorCode::shape, "RecurrentRouter: rows of input.weight", cell_->in(),
                  parameters_.input.weight.rows());
    require_equal(ErrorCode::shape, "RecurrentRouter: columns of output.weight", cell_->width(),
                  parameters_.output.weight.cols());
  }

  Index outputs() const { return parameters_.output.weight.rows(); }
  Index in() const { return parameters_.input.weight.cols(); }
  const Cell& cell() const { return *cell_; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    const auto rows_of = [&](Index cols) { return arena.matrix<T>(size.tokens, cols); };
    return {{},
            rows_of(cell_->in()),
            rows_of(cell_->in()),
            rows_of(cell_->width()),
            rows_of(cell_->width()),
            cell_->scratch(size, arena)};
  }

  void forward(View<const T> x, View<T> logits, auto call) const {
    Scratch& scratch = call.scratch;
    check(scratch.carry, x.rows());
    const View<T> u = scratch.u.top(x.rows()), h = scratch.h.top(x.rows());
    call.execution.product_nt(x, parameters_.input.weight, u);
    cell_->forward(u, scratch.carry.in, h, call.with(scratch.cell));
    if (scratch.carry.out) copy(h, scratch.carry.out);
    call.execution.product_nt(View<const T>(h), parameters_.output.weight, logits);
  }

  /// With u and h from forward():   d_h = d_out + d_logits W_out;   d_u, d_in and d_cell are the cell's;
  /// d_W_out += d_logits^T h,  d_W_in += d_u^T x,  d_x += d_u W_in
  void backward(View<const T> x, View<const T> d_logits, View<T> d_x, Parameters& gradients, auto call) const {
    Scratch& scratch = call.scratch;
    const Carry& carry = scratch.carry;
    check(carry, x.rows());
    const View<T> u = scratch.u.top(x.rows()), d_u = scratch.d_u.top(x.rows());
    const View<T> h = scratch.h.top(x.rows()), d_h = scratch.d_h.top(x.rows());
    fill(d_u, T(0));
    fill(d_h, T(0));
    if (carry.d_out) copy(carry.d_out, d_h);
    call.execution.product_nn(d_logits, parameters_.output.weight, d_h);
    gradients.output.add_gradients(h, d_logits, call.execution);

    typename Cell::Parameters frozen;
    cell_->backward(u, carry.in, d_h, d_u, carry.d_in, carry.d_cell ? *carry.d_cell : frozen, call.with(scratch.cell));
    gradients.input.add_gradients(x, d_u, call.execution);
    if (d_x) call.execution.product_nn(View<const T>(d_u), parameters_.input.weight, d_x);
  }

 private:
  void check(const Carry& carry, Index tokens) const {
    const auto fits = [&](View<const T> state) {
      if (!state) return;
      require_equal(ErrorCode::shape, "RecurrentRouter: rows of a carry", tokens, state.rows());
      require_equal(ErrorCode::shape, "RecurrentRouter: columns of a carry", cell_->width(), state.cols());
    };
    fits(carry.in), fits(carry.out), fits(carry.d_out), fits(carry.d_in);
    if (carry.d_cell == nullptr) return;
    Cell::Parameters::for_each_tensor(
        [](std::string_view name, const Matrix<T>& gradient, const Matrix<T>& parameter) {
          require(gradient.empty() || (gradient.rows() == parameter.rows() && gradient.cols() == parameter.cols()),
                  ErrorCode::shape, "RecurrentRouter: expected a d_cell of the cell, with ", name, " [",
                  parameter.rows(), " x ", parameter.cols(), "], found [", gradient.rows(), " x ", gradient.cols(),
                  "]");
        },
        std::as_const(*carry.d_cell), cell_->parameters());
  }

  const Cell* cell_;
  Parameters parameters_;
};

static_assert(TrainableRouterPolicy<RecurrentRouter<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
