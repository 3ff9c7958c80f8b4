// SPDX-License-Identifier: MIT
// Layers whose gate decides how many experts serve a token, or looks at groups of them: mole-threshold, dynamic-moe,
// dynmole, adamole, ld-mole, deepseek-moe, deepseek-v3-gate, olmoe, scmoe-rank, scmoe-deepseek-gate.
#include "golden/methods.hpp"
#include "golden/routed_layers.hpp"
#include "mole/loss/router_entropy.hpp"
#include "mole/loss/router_z.hpp"
#include "mole/loss/sparsity_target.hpp"

#include <algorithm>
#include <cmath>

namespace golden {
namespace {

using mole::BalanceNorm;
using mole::LoadBalanceOptions;

Method threshold() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    check_gated(
        file, mole::Gate{mole::Softmax{}, mole::Threshold{.threshold = file.number("threshold")}, mole::Renormalized{}},
        execution, {.norm = BalanceNorm::k_at_uniform});
  });
}

Method dynamic_moe() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    file.ignore_option("top_k");  // of the block that the release's gate replaces
    check_gated(file, mole::Gate{mole::Softmax{}, mole::TopP{.p = file.number("top_p")}, mole::Raw{}}, execution);
  });
}

/// The release does not renormalize a single gate.
Method deepseek_moe() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const LoadBalanceOptions aux{
        .coefficient = file.number("aux_alpha", 1),
        .scope = file.flag("seq_aux") ? mole::BalanceScope::sequence : mole::BalanceScope::global};
    const mole::TopK top_k{file.integer("top_k")};
    const bool renormalizes = file.flag("norm_topk_prob");
    if (file.flag("norm", renormalizes) != renormalizes) file.refuse("norm", "the value of norm_topk_prob");
    if (renormalizes && top_k.k > 1)
      check_gated(file, mole::Gate{mole::Softmax{}, top_k, mole::Renormalized{}}, execution, aux);
    else
      check_gated(file, mole::Gate{mole::Softmax{}, top_k, mole::Raw{}}, execution, aux);
  });
}

/// Weights in the order of the selection, and the gradients of their sum with the file's upstream.
template <class T, class Gating, class Execution>
void check_weights(Comparison<T>& file, const Gating& gating, Execution execution) {
  auto layer = routing_layer(file, gating, execution);
  const Matrix<T> x = load_x(file);
  auto work = layer.workspace(x.rows());
  auto gradients = layer.gradients();
  layer.route(x, work);
  expect_gate<T>(file, work);
  if (!file.has("grad_gate")) return;  // the release has no gradient there
  const auto indices = file.integers("gate.indices");
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
}

Method deepseek_v3_gate() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    std::vector<T> bias;
    if (file.flag("bias", file.has("router.bias"))) {
      const Matrix<T> stored = file.matrix("router.bias");
      bias.assign(stored.elements().begin(), stored.elements().end());
    }
    const mole::GroupedTopK<T> select(file.integer("top_k"), file.integer("n_groups", 1),
                                      file.integer("topk_groups", 1), bias);
    const double scale = file.number("route_scale", 1);
    const std::string& score = file.text("score_func");
    if (score == "sigmoid")
      check_weights(file, mole::Gate{mole::Sigmoid{}, select, mole::Renormalized{scale}}, execution);
    else if (score == "softmax")
      check_weights(file, mole::Gate{mole::Softmax{}, select, mole::Raw{scale}}, execution);
    else
      file.refuse("score_func", "sigmoid or softmax");
  });
}

/// Of SCMoE: experts at given places of the order, which the file lists in any order.
template <class T>
mole::NthBest load_places(const Comparison<T>& file) {
  mole::NthBest select;
  select.places.clear();
  for (double place : file.list("ranks")) select.places.push_back(Index(place));
  std::ranges::sort(select.places);
  return select;
}

Method scmoe_rank() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    file.ignore_option("norm_topk_prob");  // of the port to DeepSeekMoE; this block always divides by the sum
    check_gated(file, mole::Gate{mole::Softmax{}, load_places(file), mole::Renormalized{}}, execution);
  });
}

/// Divides by the sum only on request, and only if the model has a top_k above 1.
Method scmoe_deepseek_gate() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    for (const char* option : {"rank", "scaling"})
      file.ignore_option(option);  // of experts that the file does not have
    const mole::NthBest select = load_places(file);
    if (file.flag("norm_topk_prob") && file.integer("top_k", 2) > 1)
      check_weights(file, mole::Gate{mole::Softmax{}, select, mole::Renormalized{}}, execution);
    else
      check_weights(file, mole::Gate{mole::Softmax{}, select, mole::Raw{}}, execution);
  });
}

Method olmoe() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const mole::Gate gate{mole::Softmax{}, mole::TopK{file.integer("top_k")}, mole::Raw{}};
    if (!file.flag("override", file.has("override.weights"))) return check_gated(file, gate, execution);
    // C3PO: the last token of every sequence is routed by weights from elsewhere.
    with_layer(file, load_router(file), gate, execution, [&](auto& layer, const auto& names) {
      const Matrix<T> x = load_x(file), weights = file.matrix("override.weights");
      auto work = layer.workspace(x.rows());
      layer.route(x, work);
      file.expect_optional("router.logits", work.logits());
      file.expect_optional("router.probs", work.scores());
      const std::vector<Index> starts = sequence_starts(file, x.rows());
      const mole::Pass pass{.sequence_begin = starts};
      for (Index sequence = 0; sequence < pass.sequences(); ++sequence)
        for (Index e = 0; e < weights.cols(); ++e)
          work.logits()(pass.end_of(sequence, x.rows()) - 1, e) = std::log(weights(0, e));
      const auto& gating = std::as_const(layer).gating();
      using Scratch = typename std::remove_cvref_t<decltype(gating)>::Scratch;
      mole::Call<decltype(execution), Scratch> call{execution, work.pass, work.gating_scratch};
      gating.choose(static_cast<mole::Trace<T>&>(work), call);
      file.expect_optional("gate.dense", dense_weights(work.routing, names.experts()));
      expect_choice(file, work.routing, names.experts());
      Matrix<T> y(x.rows(), layer.out());
      layer.apply(x, work.routing, y, work);
      file.expect("y", y);
    });
  });
}

template <class T>
mole::Entropy load_entropy(const Comparison<T>& file) {
  const std::string& type = file.text("entropy_type");
  if (type != "tsallis" && type != "renyi") file.refuse("entropy_type", "tsallis or renyi");
  return {.family = type == "renyi" ? mole::EntropyFamily::renyi : mole::EntropyFamily::tsallis,
          .order = file.number("entropy_index"),
          .shift = file.number("entropy_eps"),
          .offset = type == "renyi" ? 1e-10 : 0};
}

Method dynmole() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const mole::Entropy entropy = load_entropy(file);
    const mole::EntropyHybrid select{
        .confident = {.p = file.number("top_p"), .crossing = false, .min_k = file.integer("keep_top_k")},
        .threshold = file.number("entropy_threshold"),
        .entropy = entropy};
    const mole::Gate gate{mole::Softmax{}, select, mole::Raw{}};
    with_layer(file, load_router(file), gate, execution, [&](auto& layer, const auto& names) {
      auto work = layer.workspace(file.matrix("x").rows());
      expect_layer(file, layer, work, {}, names);
      Matrix<T> entropies(1, work.tokens());
      for (Index n = 0; n < work.tokens(); ++n)
        entropies(0, n) = T(entropy(std::as_const(work).scores().row(n)) / entropy.largest(work.experts()));
      file.expect_optional("router.entropy", entropies);
      const auto of_entropy = [&](double coefficient) {
        return [=](mole::Trace<T>& trace) {
          return mole::router_entropy(trace, {.coefficient = coefficient, .normalized = true, .entropy = entropy});
        };
      };
      const auto of_balance = [](double coefficient) {
        return [=](mole::Trace<T>& trace) {
          return mole::load_balance(
              trace,
              {.coefficient = coefficient, .norm = BalanceNorm::k_at_uniform, .count = mole::BalanceCount::gates});
        };
      };
      const auto expect = [&](const std::string& name, auto loss) { expect_loss(file, name, layer, work, {}, loss); };
      expect("entropy", of_entropy(1));
      expect("load_balance", of_balance(1));
      const double of_dyn = file.number("dyn_loss_coef", 1), of_aux = file.number("aux_loss_coef", 1);
      expect("router", [&](mole::Trace<T>& trace) { return of_entropy(of_dyn)(trace) + of_balance(of_aux)(trace); });
    });
  });
}

/// A router beside a second one for the extra column of the gate, whose scores are the file's `column`.
template <class T, class Second, class Gating, class Execution, class ExpectRouter, class Losses>
void check_joined(Comparison<T>& file, const Second& second, const Gating& gating, Execution execution,
                  const std::string& column, ExpectRouter expect_router, Losses losses) {
  const mole::JoinedRouter router(load_router(file), second);
  with_layer(file, router, gating, execution, [&](auto& layer, const auto& names) {
    auto work = layer.workspace(file.matrix("x").rows());
    expect_layer(file, layer, work, {}, "", [&](const auto& gradients) {
      names.expect_gradients(file, "grad.", layer.experts(), gradients.experts);
      expect_router("grad.", gradients.router);
    });
    expect_gate<T>(file, work);
    Matrix<T> of_second(work.tokens(), 1);
    for (Index n = 0; n < work.tokens(); ++n) of_second(n, 0) = work.scores()(n, work.experts());
    file.expect_optional(column, of_second);
    losses([&](const std::string& name, auto loss) { expect_loss(file, name, layer, work, {}, loss, expect_router); });
  });
}

template <class T>
void expect_linear_gradients(Comparison<T>& file, const std::string& name, const mole::LinearParameters<T>& gradients) {
  file.expect_gradient(name + ".weight", gradients.weight);
  if (!gradients.bias.empty()) file.expect_gradient(name + ".bias", gradients.bias);
}

Method adamole() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    mole::Rng rng;
    const auto parameters = load_linear(file, "threshold");
    mole::LinearRouter<T> threshold({.in = parameters.weight.cols(), .experts = 1, .bias = !parameters.bias.empty()},
                                    rng);
    threshold.parameters() = parameters;
    check_joined(
        file, threshold,
        mole::Gate{mole::SoftmaxWithThreshold{file.number("max_threshold")}, mole::LearnedThreshold{}, mole::Shifted{}},
        execution, "router.threshold",
        [&](const std::string& prefix, const auto& gradients) {
          expect_router_gradients(file, prefix, gradients.first);
          expect_linear_gradients(file, prefix + "threshold", gradients.second);
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
    const auto hidden = load_linear(file, "lambda_mlp.0");
    file.expect_option("mlp_hidden", double(hidden.weight.rows()));
    mole::MlpRouter<T> lambda({.in = hidden.weight.cols(), .hidden = hidden.weight.rows(), .experts = 1}, rng);
    lambda.parameters() = {hidden, load_linear(file, "lambda_mlp.2")};
    check_joined(
        file, lambda,
        mole::Gate{mole::LearnedSparsegen{file.number("eps")}, mole::Threshold{.threshold = 0, .strict = true},
                   mole::Raw{}},
        execution, "router.lambda",
        [&](const std::string& prefix, const auto& gradients) {
          expect_router_gradients(file, prefix, gradients.first);
          expect_linear_gradients(file, prefix + "lambda_mlp.0", gradients.second.hidden);
          expect_linear_gradients(file, prefix + "lambda_mlp.2", gradients.second.output);
        },
        [&](auto expect) {
          expect("load_balance",
                 [](mole::Trace<T>& trace) { return mole::load_balance(trace, {.score = mole::BalanceScore::gates}); });
          expect("router_z", [](mole::Trace<T>& trace) { return mole::router_z(trace); });
          for (Index k = 1; k < file.matrix("router.weight").rows(); ++k)
            expect("lambda_reg_k" + std::to_string(k),
                   [k](mole::Trace<T>& trace) { return mole::sparsity_target(trace, {.k = k}); });
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
          {"deepseek-moe", deepseek_moe()},
          {"deepseek-v3-gate", deepseek_v3_gate()},
          {"olmoe", olmoe()},
          {"scmoe-rank", scmoe_rank()},
          {"scmoe-deepseek-gate", scmoe_deepseek_gate()}};
}

}  // namespace golden
