// SPDX-License-Identifier: MIT
// Every kind of experts under every Score, Select and Weigh that make sense together: laws and gradients. Which do not
// make sense, and why, is in every_gate.cpp.
#include "composition/every_gate.hpp"
#include "laws/gating_laws.hpp"
#include "mole/execution/simd.hpp"
#include "mole/factors/gated_ranks.hpp"
#include "mole/factors/growing_bank.hpp"
#include "mole/factors/sparse_projection.hpp"
#include "mole/layer/check_gradients.hpp"
#include "mole/loss/router_z.hpp"
#include "support/layers.hpp"

#include <algorithm>
#include <limits>
#include <set>

using namespace mole;
using composition::gate_experts;
using composition::NamedGate;
using support::random_matrix;

namespace {

constexpr Index in = 5, out = 6;

const composition::EveryGate& every_gate() {
  static const composition::EveryGate all = composition::every_gate();
  return all;
}

/// A layer over a gate for which nothing has to be compiled anew.
template <class Factors>
auto layer_of(LowRank<Factors> experts, const composition::AnyGate& gate) {
  Rng rng(5);
  return support::with_random_b(
      MixtureLinear(LinearRouter<double>({.in = in, .experts = gate.columns(gate_experts), .bias = true}, rng), gate,
                    std::move(experts), DenseBase(random_matrix<double>(out, in, 6)), Simd<>{}));
}

// ---- the factors

LowRank<DenseFactors<double>> dense() {
  Rng rng(1);
  return {{.in = in, .out = out, .experts = gate_experts, .ranks = {2, 1, 3, 2}, .alpha = 3}, rng};
}
LowRank<SparseProjection<double>> sparse() {
  Rng rng(1);
  return {{.in = in, .out = out, .experts = gate_experts, .rank = 2, .nonzeros = 3, .alpha = 3}, rng};
}
LowRank<GatedRanks<double>> gated() {
  Rng rng(1);
  return {{.in = in, .out = out, .experts = gate_experts, .rank = 2, .alpha = 3}, rng};
}
LowRank<GrowingBank<double>> grown() {
  Rng rng(1);
  LowRank<GrowingBank<double>> bank({.in = in, .out = out, .ranks = {2}, .alpha = 1.5}, rng);
  fill_uniform(bank.parameters().lora_B.view(), 1, rng);
  bank.append(2, rng);
  return bank;
}

// ---- what holds for all of them

/// Where a gate breaks a law; "" where it keeps them.
std::string broken_law(const NamedGate& named) {
  const Index columns = named.gate.columns(gate_experts);
  support::FirstFailure failure;
  const auto check_routing = [&](const Trace<double>& trace, const char* when) {
    const Routing<double>& routing = trace.routing;
    failure.expect(routing.finished() && routing.tokens() == trace.tokens(), when, ": tokens");
    failure.expect(routing.pairs() <= named.gate.max_pairs(trace.tokens(), gate_experts), when, ": too many pairs");
    failure.expect(support::all_finite(routing.gates()), when, ": a weight is not finite");
    for (Index n = 0; n < trace.tokens(); ++n) {
      const auto chosen = routing.experts_of(n);
      const std::set<int> distinct(chosen.begin(), chosen.end());
      failure.expect(distinct.size() == chosen.size(), when, ": token ", n, " has an expert twice");
      for (int e : chosen) failure.expect(e >= 0 && e < gate_experts, when, ": token ", n, " has expert ", e);
    }
  };

  for (const Index tokens : {0, 1, 7}) {
    const auto logits = random_matrix<double>(tokens, columns, 21, 3);
    const auto trace = laws::routed(named.gate, logits, gate_experts);
    check_routing(trace, "random logits");
    failure.expect(trace.nan_tokens == 0, "random logits: NaN");
    if (named.whole_call) continue;
    const auto together = laws::detail::choices(trace);
    for (Index n = 0; n < tokens; ++n) {
      Matrix<double> alone(1, columns);
      std::copy_n(logits.view().row_data(n), columns, alone.data());
      const auto choice = laws::detail::choices(laws::routed(named.gate, alone, gate_experts))[0];
      failure.expect(choice == together[std::size_t(n)], "token ", n, " depends on others");
    }
  }
  for (const double value : {1e4, -1e4, -std::numeric_limits<double>::infinity()}) {
    auto logits = random_matrix<double>(4, columns, 22);
    for (Index e = 0; e < gate_experts; ++e) logits(0, e) = value;
    logits(1, 0) = value;
    logits(2, gate_experts - 1) = value;
    check_routing(laws::routed(named.gate, logits, gate_experts), "huge logits");
  }
  Matrix<double> nan(3, columns);
  nan(1, 0) = std::numeric_limits<double>::quiet_NaN();
  failure.expect(laws::routed(named.gate, nan, gate_experts).nan_tokens == 1, "a NaN is not reported");
  return failure.text();
}

/// y by the formula alone, from the routing that the layer chose:   x W^T + sum_e g_e x delta_e^T
template <class Layer>
Matrix<double> plain_output(const Layer& layer, const Matrix<double>& x, const Routing<double>& routing) {
  Matrix<double> y(x.rows(), out);
  for (Index n = 0; n < x.rows(); ++n) {
    Matrix<double> weight(out, in);
    for (Index r = 0; r < out; ++r) std::copy_n(layer.base().weight().row_data(r), in, weight.view().row_data(r));
    for (std::size_t j = 0; j < routing.experts_of(n).size(); ++j)
      layer.experts().add_delta(routing.experts_of(n)[j], routing.gates_of(n)[j], weight.view());
    for (Index o = 0; o < out; ++o)
      for (Index i = 0; i < in; ++i) y(n, o) += weight(o, i) * x(n, i);
  }
  return y;
}

/// Where a layer of these experts under this gate is wrong; "" where it is right.
template <class Factors>
std::string broken_layer(const LowRank<Factors>& experts, const NamedGate& named) {
  support::FirstFailure failure;
  auto layer = layer_of(experts, named.gate);
  for (const Index tokens : {0, 1, 9}) {
    const auto x = random_matrix<double>(tokens, in, 3);
    Matrix<double> y(tokens, out);
    auto work = layer.workspace(tokens);
    layer.forward(x, y, work);
    const double difference = support::largest_difference(y, plain_output(layer, x, work.routing));
    failure.expect(difference < 1e-12, tokens, " tokens: the formula differs by ", difference);
  }
  if (!named.gradient_is_derivative) return failure.text();
  const GradientReport report = check_gradients(layer, {.tokens = 5, .pass = {.training = true}},
                                                [](auto& trace) { return router_z(trace, {.coefficient = 0.3}); });
  failure.expect(report.worst < 1e-8, "gradient of ", report.worst_tensor, " is wrong by ", report.worst);
  failure.expect(report.checked > 70, "only ", report.checked, " numbers compared");
  failure.expect(report.moved * 20 < report.checked, report.moved, " numbers left out of ", report.checked);
  return failure.text();
}

template <class Factors>
void check_under_every_gate(const LowRank<Factors>& experts) {
  for (const NamedGate& named : every_gate().gates) {
    const std::string broken = broken_layer(experts, named);
    INFO(named.name << ": " << broken);
    CHECK(broken == "");
  }
}

}  // namespace

TEST_CASE("Every Score composes with every Select and every Weigh, or there is a reason", "[composition]") {
  // Scores of any sign, not negative, probabilities, and with a threshold; by the selects and weighs that take them.
  const std::size_t of_any_sign = 2 * (7 * 4), not_negative = 4 * (9 * 6), probabilities = 4 * (10 * 6),
                    with_threshold = 1 * (11 * 7 - 5);
  CHECK(every_gate().gates.size() == of_any_sign + not_negative + probabilities + with_threshold);
  CHECK(every_gate().gates.size() + every_gate().others.size() == 11 * 11 * 7);
  for (const NamedGate& named : every_gate().gates) {
    const std::string broken = broken_law(named);
    INFO(named.name << ": " << broken);
    CHECK(broken == "");
  }
}

TEST_CASE("Dense factors under every gate", "[composition]") {
  check_under_every_gate(dense());
}
TEST_CASE("Sparse projections under every gate", "[composition]") {
  check_under_every_gate(sparse());
}
TEST_CASE("Gated ranks under every gate", "[composition]") {
  check_under_every_gate(gated());
}
TEST_CASE("A bank that has grown under every gate", "[composition]") {
  check_under_every_gate(grown());
}
