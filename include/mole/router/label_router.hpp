// SPDX-License-Identifier: MIT
// LabelRouter: a router that reads an embedding of a token's label in place of the token.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/random.hpp"
#include "mole/core/state.hpp"
#include "mole/router/router_policy.hpp"

#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// logits_n = router(embedding of label_n): all tokens of a task, a domain or a modality have the same.
///
///   labels in Pass::labels, from 0 to L - 1   embedding [L x D], D the router's inputs   logits [N x E]
///
/// x is not read and gets no gradient. The router runs once for each label, not for each token, under a pass without
/// what belongs to tokens: it cannot be one of labels, and its random numbers are a label's. The embedding starts as
/// N(0, 1). What the label of an unrouted token is does not matter. Throws Error(option) for less than 1 label;
/// forward() throws Error(option) for a label out of range, and for none where L is above 1.
/// Source: Liu et al. 2023 (MOELoRA), arXiv:2310.18339, with a linear router and a softmax over all experts.
template <class Router>
class LabelRouter {
  static_assert(RouterPolicy<Router>, "mole: Router must model RouterPolicy (mole/router/router_policy.hpp)");
  static_assert(reads_of<Router> == Reads::tokens, "mole: LabelRouter takes a Router of tokens");

 public:
  using Scalar = typename Router::Scalar;
  using T = Scalar;
  static constexpr bool borrows = borrows_parameters<Router>;

  struct Parameters {
    Matrix<T> embedding;
    ParametersOf<Router> router;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("embedding", p.embedding...);
      for_each_tensor_within<ParametersOf<Router>>("router", f, p.router...);
    }
  };

  /// The parameters in place; converts to Parameters, to make gradients of the same shapes.
  template <class Embedding, class Of>
  struct Parts {
    Embedding& embedding;
    Of router;
    operator Parameters() const { return {embedding, router}; }
  };

  struct Scratch {
    View<T> logits, d_logits;  // [L x E]
    ScratchOf<Router> router;
  };

  template <std::uniform_random_bit_generator Generator>
  LabelRouter(Router router, Index labels, Generator& generator) : router_(std::move(router)) {
    require(labels >= 1, ErrorCode::option, "LabelRouter: expected at least 1 label, found ", labels);
    embedding_ = Matrix<T>(labels, router_.in());
    for (T& number : embedding_.elements()) number = T(standard_normal(generator));
  }

  void check_sizes() const {
    detail::check_sizes(router_);
    require(!embedding_.empty() && embedding_.cols() == router_.in(), ErrorCode::shape,
            "LabelRouter: expected an embedding of ", router_.in(), " columns, found [", embedding_.rows(), " x ",
            embedding_.cols(), "]");
  }
  void check_gradients(const Parameters& gradients) const { detail::check_gradients(router_, gradients.router); }

  Index outputs() const { return router_.outputs(); }
  Index labels() const { return embedding_.rows(); }
  Router& router() { return router_; }
  const Router& router() const { return router_; }
  auto parameters() { return Parts<Matrix<T>, decltype(parameters_of(router_))>{embedding_, parameters_of(router_)}; }
  auto parameters() const {
    return Parts<const Matrix<T>, decltype(parameters_of(router_))>{embedding_, parameters_of(router_)};
  }

  template <class F>
  void for_each_state(F&& f) {
    for_each_state_within("router", router_, f);
  }

  Scratch scratch(CallSize size, Arena& arena) const {
    size.tokens = labels();
    return {arena.matrix<T>(labels(), outputs()), arena.matrix<T>(labels(), outputs()),
            scratch_for(router_, size, arena)};
  }

  void forward(View<const T>, View<T> logits, auto call) const {
    call.pass.check_labels("LabelRouter", labels(), logits.rows());
    const View<T> own = call.scratch.logits;
    const Pass pass = of_labels(call.pass);
    forward_router(router_, View<const T>(embedding_), own, Call{call.execution, pass, call.scratch.router});
    for (Index n = 0; n < logits.rows(); ++n)
      for (Index e = 0; e < logits.cols(); ++e) logits(n, e) = own(label(call.pass, n), e);
  }

  /// The d_logits of tokens with the same label are summed;   d_embedding is the router's d_in
  void backward(View<const T>, View<const T> d_logits, View<T>, Parameters& gradients,
                auto call) const requires TrainableRouterPolicy<Router> {
    const View<T> own = call.scratch.d_logits;
    fill(own, T(0));
    for (Index n = 0; n < d_logits.rows(); ++n)
      for (Index e = 0; e < d_logits.cols(); ++e) own(label(call.pass, n), e) += d_logits(n, e);
    const Pass pass = of_labels(call.pass);
    router_.backward(View<const T>(embedding_), View<const T>(own), gradients.embedding.view(), gradients.router,
                     Call{call.execution, pass, call.scratch.router});
  }

 private:
  static Pass of_labels(const Pass& pass) {
    return {.training = pass.training, .seed = pass.seed, .layer = pass.layer, .step = pass.step};
  }
  static Index label(const Pass& pass, Index token) { return pass.routes(token) ? pass.label(token) : 0; }

  Router router_;
  Matrix<T> embedding_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
