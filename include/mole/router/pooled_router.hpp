// SPDX-License-Identifier: MIT
// PooledRouter: a router that decides once for each sequence.
#pragma once

#include "mole/core/row.hpp"
#include "mole/core/state.hpp"
#include "mole/router/router_policy.hpp"

#include <algorithm>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The logits of each token are those of the router for the mean of its sequence's x.
///
///   x [N x I], logits as those of the router; Pass::sequence_begin says where sequences begin
///
/// Only routed tokens count in the mean, the others get its logits, too; a mean of no tokens is 0. The router is called
/// with a row for each sequence that has tokens, and a pass without what belongs to tokens: it cannot be one of labels,
/// and its random numbers are a sequence's. Parameters are those of the router, under the same names.
/// Scratch: 2 [tokens x I] and 2 [tokens x outputs], as every token may be a sequence.
/// Source: Muqeeth et al. 2023 (SMEAR), arXiv:2306.03745; the gates of MoVA's images pool alike, arXiv:2404.13046.
template <class Router>
class PooledRouter {
  static_assert(RouterPolicy<Router>, "mole: Router must model RouterPolicy (mole/router/router_policy.hpp)");
  static_assert(reads_of<Router> == Reads::tokens, "mole: PooledRouter takes a Router of tokens");

 public:
  using Scalar = typename Router::Scalar;
  using T = Scalar;
  using Parameters = ParametersOf<Router>;
  static constexpr bool borrows = borrows_parameters<Router>;

  struct Scratch {
    View<T> mean, d_mean;      // [sequences x I]
    View<T> logits, d_logits;  // [sequences x outputs]
    ScratchOf<Router> router;
  };

  explicit PooledRouter(Router router) : router_(std::move(router)) {}

  void check_sizes() const { detail::check_sizes(router_); }
  void check_gradients(const Parameters& gradients) const { detail::check_gradients(router_, gradients); }

  Index outputs() const { return router_.outputs(); }
  Index in() const { return router_.in(); }
  Router& router() { return router_; }
  const Router& router() const { return router_; }
  decltype(auto) parameters() { return parameters_of(router_); }
  decltype(auto) parameters() const { return parameters_of(router_); }

  template <class F>
  void for_each_state(F&& f) {
    for_each_state_within("router", router_, f);
  }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    return {arena.matrix<T>(size.tokens, in()), arena.matrix<T>(size.tokens, in()),
            arena.matrix<T>(size.tokens, outputs()), arena.matrix<T>(size.tokens, outputs()),
            scratch_for(router_, size, arena)};
  }

  void forward(View<const T> x, View<T> logits, auto call) const {
    Scratch& s = call.scratch;
    const Index sequences = for_each_sequence(call.pass, x.rows(), [&](Index row, Index begin, Index end) {
      const std::span<T> mean = s.mean.row(row);
      std::ranges::fill(mean, T(0));
      const Index count = routed(call.pass, begin, end);
      for (Index n = begin; n < end; ++n)
        if (call.pass.routes(n)) detail::add_scaled(T(1) / T(count), x.row_data(n), mean.data(), in());
    });
    const Pass pass = of_sequences(call.pass);
    forward_router(router_, View<const T>(s.mean.top(sequences)), s.logits.top(sequences),
                   Call{call.execution, pass, s.router});
    for_each_sequence(call.pass, x.rows(), [&](Index row, Index begin, Index end) {
      for (Index n = begin; n < end; ++n) std::ranges::copy(s.logits.row(row), logits.row(n).begin());
    });
  }

  /// The router's gradients for the means, from the sums of d_logits;   d_x_n += d_mean / tokens of the mean
  void backward(View<const T> x, View<const T> d_logits, View<T> d_x, Parameters& gradients,
                auto call) const requires TrainableRouterPolicy<Router> {
    Scratch& s = call.scratch;
    const Index sequences = for_each_sequence(call.pass, x.rows(), [&](Index row, Index begin, Index end) {
      std::ranges::fill(s.d_logits.row(row), T(0));
      for (Index n = begin; n < end; ++n)
        if (call.pass.routes(n)) detail::add_scaled(1, d_logits.row_data(n), s.d_logits.row_data(row), d_logits.cols());
    });
    const View<T> d_mean = d_x ? s.d_mean.top(sequences) : View<T>();
    if (d_mean) fill(d_mean, T(0));
    const Pass pass = of_sequences(call.pass);
    router_.backward(View<const T>(s.mean.top(sequences)), View<const T>(s.d_logits.top(sequences)), d_mean, gradients,
                     Call{call.execution, pass, s.router});
    if (!d_x) return;
    for_each_sequence(call.pass, x.rows(), [&](Index row, Index begin, Index end) {
      const Index count = routed(call.pass, begin, end);
      for (Index n = begin; n < end; ++n)
        if (call.pass.routes(n)) detail::add_scaled(T(1) / T(count), d_mean.row_data(row), d_x.row_data(n), in());
    });
  }

 private:
  /// f(row, first token, one past the last) for all sequences with tokens; returns how many there are.
  template <class F>
  static Index for_each_sequence(const Pass& pass, Index tokens, F f) {
    Index row = 0;
    for (Index q = 0; q < pass.sequences(); ++q)
      if (const Index begin = pass.first_of(q), end = pass.end_of(q, tokens); begin < end) f(row++, begin, end);
    return row;
  }
  static Index routed(const Pass& pass, Index begin, Index end) {
    Index count = 0;
    for (Index n = begin; n < end; ++n) count += pass.routes(n);
    return count;
  }
  static Pass of_sequences(const Pass& pass) {
    return {.training = pass.training,
            .seed = pass.seed,
            .layer = pass.layer,
            .step = pass.step,
            .first_token = pass.first_token};
  }

  Router router_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
