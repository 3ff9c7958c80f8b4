// SPDX-License-Identifier: MIT
// Linear layers with LoRA experts, with a base or without: lora, rslora, mola, mole-topk, loramoe, hydralora, mixtral
// ...
#include "golden/methods.hpp"
#include "golden/routed_layers.hpp"
#include "mole/loss/localized_balance.hpp"

namespace golden {
namespace {

using mole::BalanceCount;
using mole::BalanceNorm;
using mole::LoadBalanceOptions;

/// Mixtral's balance loss over two layers, the second with half the logits in reversed order of the experts.
template <class T, class Layer>
void expect_loss_of_two_layers(Comparison<T>& file, Layer& layer, typename Layer::Workspace& work,
                               const mole::Pass& pass, const LoadBalanceOptions& options) {
  expect_loss(file, "load_balance_two_layers", layer, work, pass, [&](mole::Trace<T>& first) {
    auto second = layer.workspace(first.tokens());
    second.start(first.tokens(), pass);
    const Index last = first.experts() - 1;
    for (Index n = 0; n < first.tokens(); ++n)
      for (Index e = 0; e <= last; ++e) second.logits()(n, e) = first.logits()(n, last - e) / 2;
    const mole::Reference reference;
    const mole::Call call{reference, pass, second.gating_scratch};
    layer.gating().choose(static_cast<mole::Trace<T>&>(second), call);
    second.start_d_gate();
    mole::Trace<T>* const both[] = {&first, &second};
    const double value = mole::load_balance(std::span<mole::Trace<T>* const>(both), options);
    layer.gating().backward(static_cast<mole::Trace<T>&>(second), call);
    for (Index n = 0; n < first.tokens(); ++n)
      for (Index e = 0; e <= last; ++e) first.d_logits()(n, e) += second.d_logits()(n, last - e) / 2;
    return value;
  });
}

/// Everything that a routed layer is compared in.
template <class T, class Gating, class Execution>
void check_routed(Comparison<T>& file, Gating gating, Execution execution, const LoadBalanceOptions& balance) {
  const ExpertFiles<T> names(file);
  const auto experts = names.load(file);
  with_base(file, experts.in(), experts.out(), [&](auto base) {
    mole::MixtureLinear layer(load_router(file), gating, experts, std::move(base), execution);
    expect_balanced_layer(file, layer, names, balance, [&](auto& work, const mole::Pass& pass) {
      expect_loss_of_two_layers(file, layer, work, pass, balance);
      if (!file.has_option("task_types")) return;
      std::vector<int> task_types;
      for (double type : file.list("task_types")) task_types.push_back(int(type));
      file.expect_optional("task_types", {task_types.begin(), task_types.end()});
      const mole::LocalizedBalanceOptions localized{
          .task_types = task_types, .blc_alpha = file.number("blc_alpha"), .blc_weight = file.number("blc_weight")};
      expect_loss(file, "localized_balance", layer, work, pass,
                  [&](mole::Trace<T>& trace) { return mole::localized_balance(trace, localized); });
    });
  });
}

Method plain_lora(mole::Scaling scaling) {
  return under_every_execution([scaling]<class T>(Comparison<T>& file, auto execution) {
    const ExpertFiles<T> names(file);
    const auto experts = names.load(file, scaling);
    with_base(file, experts.in(), experts.out(), [&](auto base) {
      mole::MixtureLinear layer(mole::NoRouter<T>(1), mole::Gate{mole::Identity{}, mole::All{}, mole::Unit{}}, experts,
                                std::move(base), execution);
      const Matrix<T> x = file.matrix("x");
      auto work = layer.workspace(x.rows());
      expect_layer(file, layer, work, {}, names);
      Matrix<T> delta(layer.out(), layer.in());
      merge_into(layer, delta.view());
      file.expect_optional("delta_weight", delta);
      if (!file.has("base.weight")) return;

      Matrix<T> merged = file.matrix("base.weight"), y(x.rows(), layer.out());
      merge_into(layer, merged.view());
      file.expect_optional("merged.weight", merged);
      const Matrix<T> bias = file.has("base.bias") ? file.matrix("base.bias") : Matrix<T>{};
      mole::ExpertLinear merged_layer(experts, mole::DenseBase(merged, bias), execution);
      auto merged_work = merged_layer.workspace(x.rows());
      merged_layer.apply(x, mole::Routing<T>::from_dense(Matrix<T>(x.rows(), 1)), y, merged_work);
      file.expect_optional("merged.y", y);
    });
  });
}

Method top_k(const LoadBalanceOptions& balance, bool float32_counts = false) {
  return under_every_execution([balance, float32_counts]<class T>(Comparison<T>& file, auto execution) {
    if (float32_counts) file.losses_have_float32_counts();
    check_routed(file, mole::Gate{mole::Softmax{}, mole::TopK{.k = file.integer("top_k")}, mole::Renormalized{}},
                 execution, balance);
  });
}

/// The release stores a scaling that its forward does not apply.
Method rocket() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    file.ignore_option("stored_scaling");
    check_routed(file, mole::Gate{mole::Softmax{}, mole::TopK{.k = file.integer("top_k")}, mole::Renormalized{}},
                 execution, {});
  });
}

Method dense() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    check_routed(file, mole::Gate{mole::Softmax{}, mole::All{}, mole::Raw{}}, execution, {});
  });
}

}  // namespace

std::map<std::string, Method> linear_methods() {
  const LoadBalanceOptions one{.norm = BalanceNorm::one_at_uniform}, k{.norm = BalanceNorm::k_at_uniform};
  const LoadBalanceOptions first{.norm = BalanceNorm::one_at_uniform, .count = BalanceCount::first_choice};
  return {{"lora", plain_lora(mole::Scaling::alpha_over_rank)},
          {"rslora", plain_lora(mole::Scaling::alpha_over_sqrt_rank)},
          {"mola", top_k(one, true)},
          {"mola-moepeft", top_k(one)},
          {"mole-topk", top_k(k, true)},
          {"mixtral", top_k(k)},
          {"rocket", rocket()},
          {"unimoe", top_k(first)},
          {"loramoe", dense()},
          {"loramoe-moepeft", dense()},
          {"hydralora", dense()}};
}

}  // namespace golden
