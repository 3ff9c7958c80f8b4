// SPDX-License-Identifier: MIT
// expect_layer(), expect_loss(), check_gated(): the comparisons of golden files of linear layers with a router.
#pragma once

#include "golden/parameters.hpp"
#include "mole/loss/load_balance.hpp"

namespace golden {

/// Of the whole layer, or of one projection.
template <class T>
auto load_base(const Comparison<T>& file, const std::string& projection = "") {
  const std::string weight = "base." + projection + "weight", bias = "base." + projection + "bias";
  return mole::DenseBase(file.matrix(weight), file.has(bias) ? file.matrix(bias) : Matrix<T>{});
}

/// Calls use(base) with the base of the file, or with none.
template <class T, class Use>
void with_base(const Comparison<T>& file, Index in, Index out, Use use) {
  if (file.has("base.weight"))
    use(load_base(file));
  else
    use(mole::NoBase<T>(in, out));
}

/// y and, where the file has grad_y, d_x and what expect_gradients(gradients) compares; their names end in `step`.
template <class T, class Layer, class ExpectGradients>
void expect_layer(Comparison<T>& file, Layer& layer, typename Layer::Workspace& work, const mole::Pass& pass,
                  const std::string& step, ExpectGradients expect_gradients) {
  const Matrix<T> x = load_x(file, "x" + step);
  Matrix<T> y(x.rows(), layer.out());
  layer.forward(x, y, work, pass);
  file.expect("y" + step, y);
  if (!file.has("grad_y" + step)) return;
  const Matrix<T> d_y = file.matrix("grad_y" + step);
  Matrix<T> d_x(x.rows(), layer.in());
  auto gradients = layer.gradients();
  layer.backward(x, d_y, d_x, gradients, work);
  file.expect("grad_x" + step, d_x);
  expect_gradients(gradients);
}

/// Of a layer of linear experts, and its gate, if it has a linear router.
template <class T, class Layer>
void expect_layer(Comparison<T>& file, Layer& layer, typename Layer::Workspace& work, const mole::Pass& pass,
                  const ExpertFiles<T>& names) {
  expect_layer(file, layer, work, pass, "", [&](const auto& gradients) {
    names.expect_gradients(file, "grad.", layer.experts(), gradients.experts);
    if constexpr (requires { gradients.router.weight; }) expect_router_gradients(file, "grad.", gradients.router);
  });
  expect_gate<T>(file, work);
}

/// A loss of the file and its gradients; `loss(trace)` gives its value, expect_router(prefix, gradients) compares the
/// router's.
template <class T, class Layer, class Loss, class ExpectRouter>
void expect_loss(Comparison<T>& file, const std::string& name, Layer& layer, typename Layer::Workspace& work,
                 const mole::Pass& pass, Loss loss, ExpectRouter expect_router) {
  if (!file.has("loss." + name)) return;
  const Matrix<T> x = file.matrix("x");
  Matrix<T> d_x(x.rows(), x.cols());
  auto gradients = layer.gradients();
  layer.route(x, work, pass);
  file.expect_number("loss." + name, loss(static_cast<mole::Trace<T>&>(work)));
  layer.route_backward(x, d_x, gradients, work);
  file.expect_gradient("grad_loss." + name + ".x", d_x);
  expect_router("grad_loss." + name + ".", gradients.router);
}

/// Of a linear router.
template <class T, class Layer, class Loss>
void expect_loss(Comparison<T>& file, const std::string& name, Layer& layer, typename Layer::Workspace& work,
                 const mole::Pass& pass, Loss loss) {
  expect_loss(file, name, layer, work, pass, loss, [&](const std::string& prefix, const auto& gradients) {
    expect_router_gradients(file, prefix, gradients);
  });
}

/// The balance loss of a linear router, of whatever name, and that of the tokens that a mask leaves.
template <class T, class Layer>
void expect_balance(Comparison<T>& file, Layer& layer, typename Layer::Workspace& work, mole::Pass pass,
                    const mole::LoadBalanceOptions& options) {
  const auto balanced = [&](mole::Trace<T>& trace) { return mole::load_balance(trace, options); };
  for (const char* name : {"load_balance", "aux", "balance"}) expect_loss(file, name, layer, work, pass, balanced);
  if (!file.has("attention_mask")) return;
  const auto flags = file.integers("attention_mask");
  const std::vector<std::uint8_t> mask(flags.begin(), flags.end());
  pass.token_mask = mask;
  expect_loss(file, "load_balance_masked", layer, work, pass, balanced);
}

/// Layer and balance loss over the sequences of the file, and what more(work, pass) compares.
template <class T, class Layer, class Names, class More>
void expect_balanced_layer(Comparison<T>& file, Layer& layer, const Names& names,
                           const mole::LoadBalanceOptions& balance, More more) {
  const Index tokens = file.matrix("x").rows();
  const std::vector<Index> starts = sequence_starts(file, tokens);
  const mole::Pass pass{.sequence_begin = starts};
  auto work = layer.workspace(tokens);
  expect_layer(file, layer, work, pass, names);
  expect_balance(file, layer, work, pass, balance);
  more(work, pass);
}

/// Calls use(layer, names) with the layer of a gate over the router and the experts of the file.
template <class T, class Router, class Gating, class Execution, class Use>
void with_layer(Comparison<T>& file, const Router& router, const Gating& gating, Execution execution, Use use) {
  const ExpertFiles<T> names(file);
  const auto experts = names.load(file);
  const mole::Gate shared(gating.score, gating.select, gating.weigh, names.shared());
  with_base(file, experts.in(), experts.out(), [&](auto base) {
    mole::MixtureLinear layer(router, shared, experts, std::move(base), execution);
    use(layer, names);
  });
}

/// Layer, gate and balance loss.
template <class T, class Gating, class Execution>
void check_gated(Comparison<T>& file, const Gating& gating, Execution execution,
                 const mole::LoadBalanceOptions& balance = {}) {
  with_layer(file, load_router(file), gating, execution, [&](auto& layer, const auto& names) {
    expect_balanced_layer(file, layer, names, balance, [](auto&, const mole::Pass&) {});
  });
}

/// Routing alone; the experts are not used. A bias of the file may belong to the selection.
template <class T, class Gating, class Execution>
auto routing_layer(Comparison<T>& file, const Gating& gating, Execution execution, bool own_bias = false) {
  mole::Rng rng;
  const auto router = load_router(file, own_bias);
  file.expect_option("experts", double(router.outputs()));
  return mole::MixtureLinear(router, gating,
                             Experts<T>({.in = router.in(), .out = 1, .experts = router.outputs(), .rank = 1}, rng),
                             mole::NoBase<T>(router.in(), 1), execution);
}

/// The tokens that a capacity of one expert each left with nobody, which some releases let pass:   y = (best score) x
template <class T>
class DroppedTokens {
 public:
  /// `option` of the file says "input" if they pass, "zero" if not.
  DroppedTokens(const Comparison<T>& file, const std::string& option, const mole::Trace<T>& trace) {
    if (file.text(option) != "input" && file.text(option) != "zero") file.refuse(option, "input or zero");
    *this = DroppedTokens(trace, file.text(option) == "input");
  }
  DroppedTokens(const mole::Trace<T>& trace, bool pass) : pass_(pass), best_(1, trace.tokens()) {
    for (Index n = 0; n < trace.tokens(); ++n) {
      const auto scores = trace.scores().row(n);
      choice_.push_back(std::ranges::max_element(scores) - scores.begin());
      best_(0, n) = scores[std::size_t(choice_.back())];
      dropped_.push_back(trace.routing.experts_of(n).empty());
    }
  }

  void add_inputs(const Matrix<T>& x, Matrix<T>& y) const {
    for_each([&](Index n) {
      for (Index i = 0; i < x.cols(); ++i) y(n, i) += best_(0, n) * x(n, i);
    });
  }
  /// To d_x, and to the scores of the trace.
  void add_gradients(const Matrix<T>& x, const Matrix<T>& d_y, Matrix<T>& d_x, mole::Trace<T>& trace) const {
    for_each([&](Index n) {
      for (Index i = 0; i < x.cols(); ++i) {
        d_x(n, i) += best_(0, n) * d_y(n, i);
        trace.d_scores()(n, Index(choice_[std::size_t(n)])) += x(n, i) * d_y(n, i);
      }
    });
  }
  /// The choices of all tokens, with their scores, whether served or not.
  void expect_first_choices(Comparison<T>& file) const {
    file.expect_optional("gate.indices", choice_);
    Matrix<T> scores(best_.cols(), 1);
    for (Index n = 0; n < best_.cols(); ++n) scores(n, 0) = best_(0, n);
    file.expect_optional("gate.weights", scores);
  }

 private:
  template <class F>
  void for_each(F f) const {
    for (Index n = 0; n < best_.cols(); ++n)
      if (pass_ && dropped_[std::size_t(n)]) f(n);
  }

  bool pass_ = false;
  Matrix<T> best_;
  std::vector<std::int64_t> choice_;
  std::vector<bool> dropped_;
};

}  // namespace golden
