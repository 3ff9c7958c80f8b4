// SPDX-License-Identifier: MIT
// Gates under a capacity, or in which experts choose their tokens: switch, deepspeed-top2, deepspeed-topk, tutel-topk,
// expert-choice.
#include "golden/methods.hpp"
#include "golden/routed_layers.hpp"
#include "mole/loss/router_z.hpp"

#include <algorithm>

namespace golden {
namespace {

using mole::BalanceCount;
using mole::CapacityOptions;
using mole::CapacityPriority;
using mole::CapacityRounding;
using mole::LoadBalanceOptions;

/// Older releases of Switch let a dropped token pass: y = (largest p) x. A layer leaves such tokens to its base.
Method switch_transformer() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const CapacityOptions capacity{.fixed = file.integer("capacity"), .per_sequence = true};
    const mole::Gate gate{mole::Softmax{}, mole::ExpertCapacity{mole::TopK{1}, capacity}, mole::Raw{}};
    with_layer(file, load_router(file), gate, execution, [&](auto& layer, const auto& names) {
      const Matrix<T> x = load_x(file);
      const std::vector<Index> starts = sequence_starts(file, x.rows());
      const mole::Pass pass{.sequence_begin = starts};
      auto work = layer.workspace(x.rows());
      Matrix<T> y(x.rows(), layer.out());
      layer.forward(x, y, work, pass);
      const DroppedTokens<T> dropped(file, "dropped", work);
      dropped.add_inputs(x, y);
      file.expect("y", y);
      expect_scores<T>(file, work);
      file.expect_optional("gate.mask", mask_of(work.routing, names.experts()));
      dropped.expect_first_choices(file);
      if (file.has("grad_y")) {
        const Matrix<T> d_y = file.matrix("grad_y");
        Matrix<T> d_x(x.rows(), x.cols());
        auto gradients = layer.gradients();
        dropped.add_gradients(x, d_y, d_x, work);
        layer.backward(x, d_y, d_x, gradients, work);
        file.expect("grad_x", d_x);
        names.expect_gradients(file, "grad.", layer.experts(), gradients.experts);
        expect_router_gradients(file, "grad.", gradients.router);
      }
      const auto expect = [&](const std::string& name, auto loss) { expect_loss(file, name, layer, work, pass, loss); };
      const auto balance = [](BalanceCount count) {
        return [=](mole::Trace<T>& trace) {
          return mole::load_balance(trace, {.count = count, .scope = mole::BalanceScope::sequence});
        };
      };
      expect("load_balance", balance(BalanceCount::first_choice_if_served));
      expect("load_balance_before_capacity", balance(BalanceCount::first_choice));
      expect("router_z", [](mole::Trace<T>& trace) { return mole::router_z(trace); });
    });
  });
}

/// The routing of a layer without a capacity.
template <class T, class Execution>
mole::Routing<T> free_routing(Comparison<T>& file, const Matrix<T>& x, bool own_bias, Execution execution) {
  const mole::Gate gate{mole::Softmax{}, mole::TopK{file.integer("top_k")}, mole::Raw{}};
  auto layer = routing_layer(file, gate, execution, own_bias);
  auto work = layer.workspace(x.rows());
  layer.route(x, work);
  return work.routing;
}

template <class T>
std::vector<std::int64_t> loads(const mole::Routing<T>& routing) {
  std::vector<std::int64_t> all;
  for (Index e = 0; e < routing.experts(); ++e) all.push_back(routing.load(e));
  return all;
}

/// Logits, gates, and the gradients of the weight of the router for an upstream d_gate(n, e); then the loss `name`.
template <class T, class Layer, class DGate>
void expect_routing(Comparison<T>& file, Layer& layer, typename Layer::Workspace& work, const Matrix<T>& x,
                    DGate d_gate, const std::string& name, const LoadBalanceOptions& balance) {
  const auto expect_weight = [&](const std::string& prefix, const auto& gradients) {
    file.expect_gradient(prefix + "router.weight", gradients.weight);  // a bias is a constant of the release
  };
  layer.route(x, work);
  expect_scores<T>(file, work);
  if (file.has("grad_gate")) {
    for (Index p = 0; p < work.routing.pairs(); ++p)
      work.d_gate()[std::size_t(p)] = d_gate(work.routing.token(p), work.routing.expert(p));
    Matrix<T> d_x(x.rows(), x.cols());
    auto gradients = layer.gradients();
    layer.route_backward(x, d_x, gradients, work);
    file.expect("grad_x", d_x);
    expect_weight("grad.", gradients.router);
  }
  expect_loss(
      file, name, layer, work, {}, [&](auto& trace) { return mole::load_balance(trace, balance); }, expect_weight);
}

/// The places of the kept pairs in the buffers of their experts, -1 for others. They are filled token by token, or with
/// the first choices of all tokens, then the second ones.
template <class T>
std::vector<std::int64_t> places(const mole::Trace<T>& trace, bool first_choices_first) {
  std::vector<std::int64_t> found(std::size_t(trace.tokens() * trace.experts()), -1),
      taken(std::size_t(trace.experts()));
  const auto is_first = [&](Index n, int e) {
    const auto scores = trace.scores().row(n);
    return std::ranges::max_element(scores) - scores.begin() == e;
  };
  for (const bool first : {true, false})
    for (Index n = 0; n < trace.tokens(); ++n)
      for (int e : trace.routing.experts_of(n))
        if (first_choices_first ? is_first(n, e) == first : first)
          found[std::size_t(n * trace.experts() + e)] = taken[std::size_t(e)]++;
  return found;
}

/// Gates are renormalized over what survived.
Method deepspeed() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const bool top2 = file.text("method") == "deepspeed-top2", position = file.text("drop_policy") == "position";
    if (!position && (top2 || file.text("drop_policy") != "probs")) file.refuse("drop_policy", "position or probs");
    file.ignore_option("min_capacity");  // which makes no difference where it is the smaller
    const CapacityOptions options{.factor = file.number("capacity_factor"),
                                  .min = file.integer("min_capacity"),
                                  .priority = !position ? CapacityPriority::probability
                                              : top2    ? CapacityPriority::position
                                                        : CapacityPriority::token};
    const mole::ExpertCapacity select{mole::TopK{file.integer("top_k")}, options};
    const Matrix<T> x = load_x(file);
    const auto check = [&](const auto& gate) {
      auto layer = routing_layer(file, gate, execution);
      const auto free = free_routing(file, x, false, execution);
      file.expect_optional("exp_counts", loads(free));
      file.expect_option("capacity", double(select.capacity(x.rows(), free.pairs(), free.experts())));
      auto work = layer.workspace(x.rows());
      const Matrix<T> d_gates = file.has("grad_gate") ? file.matrix("grad_gate") : Matrix<T>{};
      expect_routing(file, layer, work, x, [&](Index n, int e) { return d_gates(n, e); }, "aux",
                     {.count = BalanceCount::first_choice, .k = top2 ? 1 : select.select.k});
      file.expect_optional("gate.slot", places<T>(work, top2));
    };
    if (file.flag("drop_tokens"))
      check(mole::Gate{mole::Softmax{}, select, mole::Renormalized{}});
    else
      check(mole::Gate{mole::Softmax{}, select.select, mole::Renormalized{}});
  });
}

/// Gates are divided by the sum of all k choices, before any is dropped.
template <class T, class Select, class Execution>
void check_tutel(Comparison<T>& file, const Select& select, const Matrix<T>& x, const Execution& execution) {
  const Index k = file.integer("top_k"), tokens = x.rows();
  const auto check = [&](const auto& weigh) {
    auto layer = routing_layer(file, mole::Gate{mole::Softmax{}, select, weigh}, execution, true);
    auto work = layer.workspace(tokens);
    const auto indices = file.integers("gate.indices");
    const Matrix<T> d_gates = file.has("grad_gate") ? file.matrix("grad_gate") : Matrix<T>{};
    const auto d_gate = [&](Index n, int e) {
      for (Index slot = 0; slot < k; ++slot)
        if (indices[std::size_t(n * k + slot)] == e) return d_gates(n, slot);
      return T(0);
    };
    expect_routing(file, layer, work, x, d_gate, "gshard", {.count = BalanceCount::first_choice});
    const Matrix<T> dense = dense_weights(work.routing, work.experts());
    Matrix<T> weights(tokens, k);
    std::vector<std::int64_t> kept(indices.size()), below_capacity = file.integers("gate.locations");
    for (std::size_t i = 0; i < indices.size(); ++i) {
      const Index n = Index(i) / k, e = Index(indices[i]);
      weights(n, Index(i) % k) = dense(n, e);
      kept[i] = std::ranges::count(work.routing.experts_of(n), int(e));
      below_capacity[i] = below_capacity[i] < file.integer("capacity");
    }
    file.expect_optional("gate.kept", kept);
    file.expect_optional("gate.kept", below_capacity);
    file.expect_optional("gate.weights", weights);
    file.expect_option("dropped", double(tokens * k - work.routing.pairs()));
  };
  if (file.flag("normalize_gate", true) && k > 1)
    check(mole::RenormalizedOverBest{.k = k});
  else
    check(mole::Raw{});
}

/// A capacity factor of 0 or less stands for the need of the call, as a limit in the latter case.
Method tutel_top_k() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const double factor = file.number("capacity_factor");
    const Index alignment = file.integer("alignment");
    const auto aligned = [&](Index size) { return (size + alignment - 1) / alignment * alignment; };
    const mole::TopK top_k{file.integer("top_k")};
    const Matrix<T> x = load_x(file);
    const auto free = free_routing(file, x, true, execution);
    const auto loaded = loads(free);
    const Index needed = *std::ranges::max_element(loaded);
    const mole::ExpertCapacity select{
        top_k, CapacityOptions{
                   .factor = factor == 0 ? 1 : std::abs(factor),
                   .min = 0,
                   .multiple = alignment,
                   .priority = file.flag("batch_prioritized") ? CapacityPriority::batch : CapacityPriority::position,
                   .rounding = CapacityRounding::of_each_choice}};
    Index capacity = select.capacity(x.rows(), free.pairs(), free.experts());
    if (factor == 0) capacity = aligned(needed);
    if (factor < 0) capacity = std::min(aligned(needed), capacity);
    file.expect_option("capacity", double(capacity));
    file.expect_optional("capacity", {capacity});
    if (factor == 0)
      check_tutel(file, top_k, x, execution);
    else
      check_tutel(file, select, x, execution);
  });
}

Method expert_choice() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const mole::ExpertChoice select{.factor = file.number("capacity_factor"), .per_sequence = true};
    const mole::Gate gate{mole::Softmax{}, select, mole::Raw{}};
    with_layer(file, load_router(file), gate, execution, [&](auto& layer, const auto& names) {
      expect_balanced_layer(file, layer, names, {}, [&](auto& work, const mole::Pass& pass) {
        for (Index e = 0; e < names.experts(); ++e)
          file.expect_option("tokens_per_expert", double(work.routing.load(e)) / double(pass.sequences()));
      });
    });
  });
}

}  // namespace

std::map<std::string, Method> capacity_methods() {
  return {{"switch", switch_transformer()},
          {"deepspeed-top2", deepspeed()},
          {"deepspeed-topk", deepspeed()},
          {"tutel-topk", tutel_top_k()},
          {"expert-choice", expert_choice()}};
}

}  // namespace golden
