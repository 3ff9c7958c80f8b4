// SPDX-License-Identifier: MIT
// Layers whose gate decides how many experts serve a token, or looks at groups of them: mole-threshold, dynamic-moe,
// mixlora-dynamic, dynmole, adamole, ld-mole, deepseek-moe, deepseek-v3-gate, olmoe.
#include "golden/methods.hpp"
#include "golden/routed_layers.hpp"
#include "mole/loss/load_balance.hpp"
#include "mole/loss/router_entropy.hpp"
#include "mole/loss/router_z.hpp"
#include "mole/loss/sparsity_target.hpp"

#include <cmath>

namespace golden {
namespace {

using mole::BalanceNorm;
using mole::LoadBalanceOptions;

template <class T>
bool flag(const Comparison<T>& file, const std::string& key) {
  return file.file().metadata().at(key) == "True";
}

template <class T>
auto without_base(const Comparison<T>& file) {
  const Index width = file.matrix("x").cols();
  return mole::NoBase<T>(width, width);
}

/// Layer, gate, and the loss of one name.
template <class T, class Base, class Gating, class Execution>
void check_gated(Comparison<T>& file, Base base, Gating gating, Execution execution, const std::string& loss = "",
                 const LoadBalanceOptions& balance = {}) {
  const ExpertFiles<T> names(file);
  const mole::Gate shared(gating.score, gating.select, gating.weigh, names.shared());
  mole::MixtureLinear layer(load_router(file), shared, names.load(file), std::move(base), execution);
  const std::vector<Index> starts = sequence_starts(file);
  const mole::Pass pass{.sequence_begin = starts};
  auto work = layer.workspace(file.matrix("x").rows());
  expect_layer(file, layer, work, pass, names);
  expect_loss(file, loss, layer, work, pass, [&](mole::Trace<T>& trace) { return mole::load_balance(trace, balance); });
  file.expect_all_compared();
}

Method threshold() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    check_gated(
        file, load_base(file),
        mole::Gate{mole::Softmax{}, mole::Threshold{.threshold = file.number("threshold")}, mole::Renormalized{}},
        execution, "load_balance", {.norm = BalanceNorm::k_at_uniform});
  });
}

Method dynamic_moe() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    check_gated(file, without_base(file),
                mole::Gate{mole::Softmax{}, mole::TopP{.p = file.number("top_p")}, mole::Raw{}}, execution);
  });
}

Method deepseek_moe() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const LoadBalanceOptions aux{
        .coefficient = file.number("aux_alpha"),
        .scope = flag(file, "seq_aux") ? mole::BalanceScope::sequence : mole::BalanceScope::global};
    const mole::TopK top_k{file.integer("top_k")};
    if (flag(file, "norm_topk_prob"))
      check_gated(file, without_base(file), mole::Gate{mole::Softmax{}, top_k, mole::Renormalized{}}, execution, "aux",
                  aux);
    else
      check_gated(file, without_base(file), mole::Gate{mole::Softmax{}, top_k, mole::Raw{}}, execution, "aux", aux);
  });
}

/// Routing alone; the experts are not used.
template <class T, class Gating, class Execution>
auto routing_layer(const Comparison<T>& file, const Gating& gating, Execution execution) {
  mole::Rng rng;
  const auto router = load_router(file, false);  // a bias of the file belongs to the selection
  return mole::MixtureLinear(router, gating,
                             Experts<T>({.in = router.in(), .out = 1, .experts = router.outputs(), .rank = 1}, rng),
                             mole::NoBase<T>(router.in(), 1), execution);
}

/// Weights in the order of the selection, and the gradients of their sum with the file's upstream.
template <class T, class Gating, class Execution>
void check_weights(Comparison<T>& file, const Gating& gating, Execution execution) {
  auto layer = routing_layer(file, gating, execution);
  const Matrix<T> x = file.matrix("x");
  const auto indices = file.file().integers("gate.indices");
  auto work = layer.workspace(x.rows());
  auto gradients = layer.gradients();
  layer.route(x, work);
  expect_gate<T>(file, work);
  if (!file.has("grad_gate")) return file.expect_all_compared();  // the release has no gradient there
  const Matrix<T> d_gates = file.matrix("grad_gate");
  for (Index n = 0; n < x.rows(); ++n)
    for (Index p = work.routing.first_pair(n); p < work.routing.first_pair(n + 1); ++p)
      for (Index slot = 0; slot < d_gates.cols(); ++slot)
        if (indices[std::size_t(n * d_gates.cols() + slot)] == work.routing.expert(p))
          work.d_gate()[std::size_t(p)] = d_gates(n, slot);
  Matrix<T> d_x(x.rows(), x.cols());
  layer.route_backward(x, d_x, gradients, work);
  file.expect("grad_x", d_x);
  expect_router_gradients(file, "grad.", gradients.router);
  file.expect_all_compared();
}

Method deepseek_v3_gate() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    std::vector<T> bias;
    if (flag(file, "bias")) {
      const Matrix<T> stored = file.matrix("router.bias");
      bias.assign(stored.elements().begin(), stored.elements().end());
    }
    const mole::GroupedTopK<T> select(file.integer("top_k"), file.integer("n_groups"), file.integer("topk_groups"),
                                      bias);
    const double scale = file.number("route_scale");
    if (file.file().metadata().at("score_func") == "sigmoid")
      check_weights(file, mole::Gate{mole::Sigmoid{}, select, mole::Renormalized{scale}}, execution);
    else
      check_weights(file, mole::Gate{mole::Softmax{}, select, mole::Raw{scale}}, execution);
  });
}

/// The published block around the gate is a whole feed-forward network; gate and loss are compared.
Method mixlora_dynamic() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    auto layer =
        routing_layer(file, mole::Gate{mole::Softmax{}, mole::TopP{.p = file.number("top_p")}, mole::Raw{}}, execution);
    auto work = layer.workspace(file.matrix("x").rows());
    layer.route(file.matrix("x"), work);
    expect_gate<T>(file, work);
    expect_loss(file, "load_balance", layer, work, {},
                [](mole::Trace<T>& trace) { return mole::load_balance(trace, {.norm = BalanceNorm::k_at_uniform}); });
  });
}

Method olmoe() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const mole::Gate gate{mole::Softmax{}, mole::TopK{file.integer("top_k")}, mole::Raw{}};
    if (!file.has("override.weights")) return check_gated(file, without_base(file), gate, execution);
    // C3PO: the last token of every sequence is routed by weights from elsewhere.
    const ExpertFiles<T> names(file);
    mole::MixtureLinear layer(load_router(file), gate, names.load(file), without_base(file), execution);
    const Matrix<T> x = file.matrix("x"), weights = file.matrix("override.weights");
    auto work = layer.workspace(x.rows());
    layer.route(x, work);
    file.expect("router.logits", work.logits());
    for (Index start : sequence_starts(file))
      for (Index e = 0; e < weights.cols(); ++e)
        work.logits()(start + file.integer("S") - 1, e) = std::log(weights(0, e));
    auto& gating = layer.gating();
    using Scratch = typename std::remove_reference_t<decltype(gating)>::Scratch;
    mole::Call<decltype(execution), Scratch> call{execution, work.pass, work.gating_scratch};
    gating.choose(static_cast<mole::Trace<T>&>(work), call);
    file.expect("gate.dense", dense_weights(work.routing, names.experts()));
    Matrix<T> y(x.rows(), layer.out());
    layer.apply(x, work.routing, y, work);
    file.expect("y", y);
    file.expect_all_compared();
  });
}

Method dynmole() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const auto& text = file.file().metadata();
    const mole::Entropy entropy{
        .family = text.at("entropy_type") == "renyi" ? mole::EntropyFamily::renyi : mole::EntropyFamily::tsallis,
        .order = file.number("entropy_index"),
        .shift = file.number("entropy_eps"),
        .offset = text.at("entropy_type") == "renyi" ? 1e-10 : 0};
    const mole::EntropyHybrid select{
        .confident = {.p = file.number("top_p"), .crossing = false, .min_k = file.integer("keep_top_k")},
        .threshold = file.number("entropy_threshold"),
        .entropy = entropy};
    const ExpertFiles<T> names(file);
    mole::MixtureLinear layer(load_router(file), mole::Gate{mole::Softmax{}, select, mole::Raw{}}, names.load(file),
                              load_base(file), execution);
    auto work = layer.workspace(file.matrix("x").rows());
    expect_layer(file, layer, work, {}, names);
    const auto of_entropy = [&](double coefficient) {
      return [=](mole::Trace<T>& trace) {
        return mole::router_entropy(trace, {.coefficient = coefficient, .normalized = true, .entropy = entropy});
      };
    };
    const auto of_balance = [](double coefficient) {
      return [=](mole::Trace<T>& trace) {
        return mole::load_balance(
            trace, {.coefficient = coefficient, .norm = BalanceNorm::k_at_uniform, .count = mole::BalanceCount::gates});
      };
    };
    const auto expect = [&](const std::string& name, auto loss) { expect_loss(file, name, layer, work, {}, loss); };
    expect("entropy", of_entropy(1));
    expect("load_balance", of_balance(1));
    expect("router", [&](mole::Trace<T>& trace) {
      return of_entropy(file.number("dyn_loss_coef"))(trace) + of_balance(file.number("aux_loss_coef"))(trace);
    });
    file.expect_all_compared();
  });
}

/// A router beside a second one for the extra column of the gate.
template <class T, class Second, class Gating, class Execution, class ExpectRouter, class Losses>
void check_joined(Comparison<T>& file, Second second, Gating gating, Execution execution, ExpectRouter expect_router,
                  Losses losses) {
  const ExpertFiles<T> names(file);
  mole::MixtureLinear layer(mole::JoinedRouter(load_router(file), std::move(second)), gating, names.load(file),
                            load_base(file), execution);
  const Matrix<T> x = file.matrix("x"), d_y = file.matrix("grad_y");
  Matrix<T> y(x.rows(), layer.out()), d_x(x.rows(), layer.in());
  auto work = layer.workspace(x.rows());
  auto gradients = layer.gradients();
  layer.forward(x, y, work);
  layer.backward(x, d_y, d_x, gradients, work);
  file.expect("y", y);
  file.expect("gate.dense", dense_weights(work.routing, work.scored_experts()));
  file.expect("grad_x", d_x);
  names.expect_gradients(file, "grad.", layer.experts(), gradients.experts);
  expect_router("grad.", gradients.router);
  losses([&](const std::string& name, auto loss) { expect_loss(file, name, layer, work, {}, loss, expect_router); });
  file.expect_all_compared();
}

Method adamole() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    mole::Rng rng;
    const Matrix<T> weight = file.matrix("threshold.weight");
    mole::LinearRouter<T> threshold({.in = weight.cols(), .experts = 1, .bias = true}, rng);
    threshold.parameters() = {weight, file.matrix("threshold.bias")};
    check_joined(
        file, threshold,
        mole::Gate{mole::SoftmaxWithThreshold{file.number("max_threshold")}, mole::LearnedThreshold{}, mole::Shifted{}},
        execution,
        [&](const std::string& prefix, const auto& gradients) {
          file.expect_gradient(prefix + "router.weight", gradients.first.weight);
          file.expect_gradient(prefix + "threshold.weight", gradients.second.weight);
          file.expect_gradient(prefix + "threshold.bias", gradients.second.bias);
        },
        [](auto expect) {
          expect("load_balance", [](mole::Trace<T>& trace) {
            return mole::load_balance(
                trace, {.norm = BalanceNorm::k_at_uniform, .score = mole::BalanceScore::above_threshold});
          });
        });
  });
}

Method ld_mole() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    mole::Rng rng;
    const Matrix<T> weight = file.matrix("lambda_mlp.0.weight");
    mole::MlpRouter<T> lambda({.in = weight.cols(), .hidden = weight.rows(), .experts = 1}, rng);
    lambda.parameters() = {{weight, file.matrix("lambda_mlp.0.bias")},
                           {file.matrix("lambda_mlp.2.weight"), file.matrix("lambda_mlp.2.bias")}};
    check_joined(
        file, lambda,
        mole::Gate{mole::LearnedSparsegen{file.number("eps")}, mole::Threshold{.threshold = 0, .strict = true},
                   mole::Raw{}},
        execution,
        [&](const std::string& prefix, const auto& gradients) {
          file.expect_gradient(prefix + "router.weight", gradients.first.weight);
          file.expect_gradient(prefix + "lambda_mlp.0.weight", gradients.second.hidden.weight);
          file.expect_gradient(prefix + "lambda_mlp.0.bias", gradients.second.hidden.bias);
          file.expect_gradient(prefix + "lambda_mlp.2.weight", gradients.second.output.weight);
          file.expect_gradient(prefix + "lambda_mlp.2.bias", gradients.second.output.bias);
        },
        [](auto expect) {
          expect("load_balance",
                 [](mole::Trace<T>& trace) { return mole::load_balance(trace, {.score = mole::BalanceScore::gates}); });
          expect("router_z", [](mole::Trace<T>& trace) { return mole::router_z(trace); });
          expect("lambda_reg_k2", [](mole::Trace<T>& trace) { return mole::sparsity_target(trace, {.k = 2}); });
        });
  });
}

}  // namespace

std::map<std::string, Method> gate_methods() {
  return {{"dynmole", dynmole()},
          {"adamole", adamole()},
          {"ld-mole", ld_mole()},
          {"mole-threshold", threshold()},
          {"dynamic-moe", dynamic_moe()},
          {"mixlora-dynamic", mixlora_dynamic()},
          {"deepseek-moe", deepseek_moe()},
          {"deepseek-v3-gate", deepseek_v3_gate()},
          {"olmoe", olmoe()}};
}

}  // namespace golden
