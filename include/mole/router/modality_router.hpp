// SPDX-License-Identifier: MIT
// ModalityRouter: a router behind one linear map for each modality.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/linear_parameters.hpp"
#include "mole/core/random.hpp"
#include "mole/core/state.hpp"
#include "mole/router/router_policy.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The sizes of a router with a map for each modality.
struct ModalityRouterOptions {
  Index in = 0;
  Index modalities = 1;   ///< M
  bool identity = false;  ///< the maps start as identities, without a bias; in = the router's inputs then
};

/// logits_n = router(P_m x_n + b_m),   m = label_n, the modality of the token, in Pass::labels from 0 to M - 1.
///
///   x [N x I]   projection.weight [M H x I], one P below the other, projection.bias [1 x M H], H the router's inputs
///
/// Gates alone see the maps: the experts get x itself. Tokens of a modality that follow each other are multiplied
/// together. Weights and biases start as U(-1/sqrt(I), 1/sqrt(I)), as those of the release, or as identities, under
/// which a fresh router is that without maps. What the label of an unrouted token is does not matter. Throws
/// Error(option) for sizes below 1, or identities that are not square; forward() throws Error(option) for a label out
/// of range, and for none where M is above 1.  Scratch: 2 N H numbers.
/// Source: Li et al. 2024 (Uni-MoE), arXiv:2405.11273, the 8-expert release, HITsz-TMG/Uni-MoE: a 1 x 1 convolution
/// for each modality.
template <class Router>
class ModalityRouter {
  static_assert(RouterPolicy<Router>, "mole: Router must model RouterPolicy (mole/router/router_policy.hpp)");
  static_assert(reads_of<Router> == Reads::tokens, "mole: ModalityRouter takes a Router of tokens");

 public:
  using Scalar = typename Router::Scalar;
  using T = Scalar;
  using Options = ModalityRouterOptions;
  static constexpr bool borrows = borrows_parameters<Router>;

  struct Parameters {
    LinearParameters<T> projection;
    ParametersOf<Router> router;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      for_each_tensor_within<LinearParameters<T>>("projection", f, p.projection...);
      for_each_tensor_within<ParametersOf<Router>>("router", f, p.router...);
    }
  };

  /// The parameters in place; converts to Parameters, to make gradients of the same shapes.
  template <class Projection, class Of>
  struct Parts {
    Projection& projection;
    Of router;
    operator Parameters() const { return {projection, router}; }
  };

  struct Scratch {
    View<T> projected, d_projected;  // [tokens x H]
    ScratchOf<Router> router;
  };

  template <std::uniform_random_bit_generator Generator>
  ModalityRouter(Router router, const Options& options, Generator& generator) : router_(std::move(router)) {
    require(options.in >= 1 && options.modalities >= 1, ErrorCode::option,
            "ModalityRouter: expected in and modalities of at least 1, found ", options.in, " and ",
            options.modalities);
    require(!options.identity || options.in == width(), ErrorCode::option,
            "ModalityRouter: expected as many inputs as the router's ", width(), " for identities, found ", options.in);
    const Index rows = checked_product("ModalityRouter: rows of all maps", options.modalities, width());
    projection_ = {Matrix<T>(rows, options.in), Matrix<T>(1, rows)};
    if (options.identity) {
      for (Index r = 0; r < rows; ++r) projection_.weight(r, r % width()) = 1;
      return;
    }
    const double bound = 1 / std::sqrt(double(options.in));
    fill_uniform(projection_.weight.view(), bound, generator);
    fill_uniform(projection_.bias.view(), bound, generator);
  }

  void check_sizes() const {
    detail::check_sizes(router_);
    projection_.check_sizes("ModalityRouter");
    require(!projection_.weight.empty() && projection_.weight.rows() % width() == 0, ErrorCode::shape,
            "ModalityRouter: expected maps of ", width(), " rows each, found ", projection_.weight.rows(), " rows");
  }
  void check_gradients(const Parameters& gradients) const { detail::check_gradients(router_, gradients.router); }

  Index outputs() const { return router_.outputs(); }
  Index in() const { return projection_.weight.cols(); }
  Index modalities() const { return projection_.weight.rows() / width(); }
  Router& router() { return router_; }
  const Router& router() const { return router_; }
  auto parameters() {
    return Parts<LinearParameters<T>, decltype(parameters_of(router_))>{projection_, parameters_of(router_)};
  }
  auto parameters() const {
    return Parts<const LinearParameters<T>, decltype(parameters_of(router_))>{projection_, parameters_of(router_)};
  }

  template <class F>
  void for_each_state(F&& f) {
    for_each_state_within("router", router_, f);
  }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    return {arena.matrix<T>(size.tokens, width()), arena.matrix<T>(size.tokens, width()),
            scratch_for(router_, size, arena)};
  }

  void forward(View<const T> x, View<T> logits, auto call) const {
    call.pass.check_labels("ModalityRouter", modalities(), x.rows());
    const View<T> projected = call.scratch.projected.top(x.rows());
    for_each_run(x.rows(), call.pass, [&](Index first, Index tokens, Index m) {
      call.execution.linear(x.middle_rows(first, tokens), map(m), projected.middle_rows(first, tokens));
    });
    forward_router(router_, View<const T>(projected), logits, call.with(call.scratch.router));
  }

  /// With d the router's gradient of what it reads, of the tokens of modality m:
  ///   P_m += d^T x and b_m += sum over tokens of d in `gradients`,   d_x += d P_m
  void backward(View<const T> x, View<const T> d_logits, View<T> d_x, Parameters& gradients,
                auto call) const requires TrainableRouterPolicy<Router> {
    const View<const T> projected = call.scratch.projected.top(x.rows());
    const View<T> d = call.scratch.d_projected.top(x.rows());
    const bool wanted = d_x || any_wanted(gradients.projection);
    fill(d, T(0));
    router_.backward(projected, d_logits, wanted ? d : View<T>(), gradients.router, call.with(call.scratch.router));
    if (!wanted) return;
    for_each_run(x.rows(), call.pass, [&](Index first, Index tokens, Index m) {
      const View<const T> d_run = d.middle_rows(first, tokens);
      if (!gradients.projection.weight.empty())
        add_outer_products<T>(d_run, x.middle_rows(first, tokens),
                              gradients.projection.weight.view().middle_rows(m * width(), width()), call.execution);
      for (Index n = 0; n < tokens && !gradients.projection.bias.empty(); ++n)
        for (Index j = 0; j < width(); ++j) gradients.projection.bias(0, m * width() + j) += d_run(n, j);
      if (d_x)
        call.execution.product_nn(d_run, projection_.weight.view().middle_rows(m * width(), width()),
                                  d_x.middle_rows(first, tokens));
    });
  }

 private:
  Index width() const { return router_.in(); }
  LinearWeights<T> map(Index m) const {
    LinearWeights<T> map{.weight = projection_.weight.view().middle_rows(m * width(), width())};
    if (!projection_.bias.empty()) map.bias = projection_.bias.view().middle_cols(m * width(), width());
    return map;
  }

  /// Calls f(first, tokens, modality) for tokens that follow each other; one that is not routed goes with those before.
  template <class F>
  static void for_each_run(Index tokens, const Pass& pass, F f) {
    const auto label = [&](Index n, Index otherwise) { return pass.routes(n) ? Index(pass.label(n)) : otherwise; };
    for (Index first = 0, end; first < tokens; first = end) {
      const Index m = label(first, 0);
      for (end = first + 1; end < tokens && label(end, m) == m; ++end) continue;
      f(first, end - first, m);
    }
  }

  Router router_;
  LinearParameters<T> projection_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
