// SPDX-License-Identifier: MIT
// Every kind of experts under every Score, Select and Weigh that make sense together: laws and gradients. Which do not
// make sense, and why, is in every_gate.cpp.
#include "composition/every_gate.hpp"
#include "mole/execution/simd.hpp"
#include "mole/expert/compressed_experts.hpp"
#include "mole/expert/map_experts.hpp"
#include "mole/factors/bank_mixture.hpp"
#include "mole/factors/gated_ranks.hpp"
#include "mole/factors/growing_bank.hpp"
#include "mole/factors/hadamard_factors.hpp"
#include "mole/factors/random_basis.hpp"
#include "mole/factors/shard_factors.hpp"
#include "mole/factors/shared_frozen.hpp"
#include "mole/factors/sparse_projection.hpp"
#include "mole/factors/skill_factors.hpp"
#include "mole/factors/task_factors.hpp"
#include "mole/factors/triplet_factors.hpp"
#include "mole/layer/check_gradients.hpp"
#include "mole/loss/router_z.hpp"
#include "mole/maps/block_rotation.hpp"
#include "mole/maps/dense_maps.hpp"
#include "mole/maps/diagonal_mixture.hpp"
#include "mole/maps/feature_modulation.hpp"
#include "mole/maps/kronecker_maps.hpp"
#include "mole/maps/weight_decomposition.hpp"
#include "mole/testing/gating_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <algorithm>
#include <numeric>

using namespace mole;
using composition::gate_experts;
using composition::NamedGate;
using support::random_matrix;

namespace {

constexpr Index in = 5, out = 6, tokens_checked = 5;

const composition::EveryGate& every_gate() {
  static const composition::EveryGate all = composition::every_gate();
  return all;
}

/// A layer over a gate for which nothing has to be compiled anew.
template <class Experts>
auto layer_of(const Experts& experts, const composition::AnyGate& gate) {
  Rng rng(5);
  return support::with_random_b(
      MixtureLinear(LinearRouter<double>({.in = in, .experts = gate.columns(gate_experts), .bias = true}, rng), gate,
                    experts, DenseBase(random_matrix<double>(experts.out(), in, 6)), Simd<>{}));
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
LowRank<TripletFactors<double>> triplets() {
  Rng rng(1);
  LowRank<TripletFactors<double>> made(
      {.in = in, .out = out, .experts = gate_experts, .ranks = {2, 1, 3, 2}, .alpha = 3}, rng);
  fill_uniform(made.parameters().lora_E.view(), 1, rng);
  return made;
}
LowRank<HadamardFactors<double>> hadamard() {
  Rng rng(1);
  return {{.in = in, .out = out, .experts = gate_experts, .rank = 2, .alpha = 3}, rng};
}
LowRank<SharedFrozen<double>> shared_frozen() {
  Rng rng(1);
  const auto pair = FrozenPair<double>::random(3, in + 2, out + 1, rng);
  return {{.in = in, .out = out, .experts = gate_experts, .pair = pair}, rng};
}
LowRank<RandomBasis<double>> random_basis() {
  Rng rng(1);
  return {{.in = in, .out = out, .experts = gate_experts, .rank = 2, .bases = 5, .alpha = 3}, rng};
}
LowRank<ShardFactors<double>> shards() {
  Rng rng(1);
  const auto pool = std::make_shared<ShardPool<double>>(
      ShardPool<double>::Options{
          .in = in, .out = out, .layers = gate_experts, .pool_rank = 2, .rank = 3, .private_rank = 1, .shards = 1},
      rng);
  fill_uniform(pool->parameters().pool_B.view(), 1, rng);
  return {{.pool = pool, .experts = gate_experts, .alpha = 3}, rng};
}
LowRank<BankMixture<double>> bank_mixture() {
  Rng rng(1);
  const auto bank =
      std::make_shared<VectorBank<double>>(VectorBank<double>::Options{.vectors = 4, .length = 1, .bound = 1}, rng);
  return {{.in = in, .out = out, .experts = gate_experts, .rank = 2, .bank = bank, .deviation = 1}, rng};
}
MapExperts<KroneckerMaps<double>> kronecker() {
  Rng rng(1);
  return {{.in = in, .out = out, .experts = gate_experts, .rank = 2, .alpha = 3}, rng};
}
MapExperts<BlockRotation<double>> rotations() {
  Rng rng(1);
  static const Matrix<double> weight = support::random_matrix<double>(out, in, 9);
  return {{.in = in, .out = out, .experts = gate_experts, .block = in, .weight = weight}, rng};
}
MapExperts<DiagonalMixture<double>> diagonal_mixture() {
  Rng rng(1);
  const auto bases = std::make_shared<const DiagonalBases<double>>(
      DiagonalBases<double>::Options{.rank = 2, .small_side = std::min(in, out), .large_side = std::max(in, out)});
  return {{.in = in, .out = out, .experts = gate_experts, .bases = bases, .alpha = 3}, rng};
}
LowRank<TaskFactors<double>> task_factors() {
  Rng rng(1);
  return {{.in = in, .out = out, .experts = gate_experts, .rank = 2, .up_matrices = 2, .alpha = 3}, rng};
}
LowRank<SkillFactors<double>> skill_factors() {
  Rng rng(1);
  return {{.in = in, .out = out, .experts = gate_experts, .rank = 2, .skills = 3, .alpha = 3}, rng};
}
MapExperts<WeightDecomposition<double>> weight_decomposition() {
  Rng rng(1);
  static const Matrix<double> weight = support::random_matrix<double>(out, in, 9);
  return {{.in = in, .out = out, .experts = gate_experts, .rank = 2, .weight = weight, .exact_norm = true, .alpha = 3},
          rng};
}

MapExperts<DenseMaps<double>> whole_matrices() {
  Rng rng(1);
  return {{.in = in, .out = out, .experts = gate_experts, .alpha = 3}, rng};
}
/// The eps is large, as two rows that are nearly alike have a variance near 0, and differences no longer a derivative.
constexpr double normal_eps = 4;
MapExperts<NormalizedMaps<DenseMaps<double>>> normalized_maps() {
  Rng rng(1);
  MapExperts<NormalizedMaps<DenseMaps<double>>> experts(
      {.maps = {.in = in, .out = out, .experts = gate_experts, .bias = true}, .eps = normal_eps, .alpha = 3}, rng);
  fill_uniform(experts.maps().running().mean(), 1, rng);
  return experts;
}
MapExperts<FeatureModulation<double>> modulations(ModulationForm form) {
  Rng rng(1);
  return {{.features = in, .experts = gate_experts, .form = form, .rank = 2, .alpha = 3}, rng};
}
CompressedExperts<LowRank<DenseFactors<double>>> compressed(Index main) {
  return {dense(), main};
}

// ---- what each adds to y, the row of token n, by its definition

/// Linear experts:   y += sum_e g_e delta_e x
template <class Experts>
void add_plain(const Experts& experts, std::span<const double> x, const Routing<double>& routing, Index n,
               std::span<double> y) {
  Matrix<double> weight(experts.out(), experts.in());
  for (std::size_t j = 0; j < routing.experts_of(n).size(); ++j)
    experts.add_delta(routing.experts_of(n)[j], routing.gates_of(n)[j], weight.view());
  for (std::size_t o = 0; o < y.size(); ++o)
    for (std::size_t i = 0; i < x.size(); ++i) y[o] += weight(Index(o), Index(i)) * x[i];
}

/// y += sum_e g_e s_e silu(w_e o (W_e x + b_e - mean_e) / sqrt(variance_e + eps) + c_e)
void add_plain(const MapExperts<NormalizedMaps<DenseMaps<double>>>& experts, std::span<const double> x,
               const Routing<double>& routing, Index n, std::span<double> y) {
  const auto& maps = experts.maps();
  const auto parameters = experts.parameters();
  for (std::size_t j = 0; j < routing.experts_of(n).size(); ++j) {
    const Index e = routing.experts_of(n)[j];
    for (Index o = 0; o < experts.out(); ++o) {
      double z = parameters.maps.bias(e, o);
      for (Index i = 0; i < experts.in(); ++i)
        z += parameters.maps.weight(e * experts.out() + o, i) * x[std::size_t(i)];
      const double v = parameters.weight(e, o) * (z - maps.running().mean()(e, o)) /
                           std::sqrt(maps.running().variance()(e, o) + normal_eps) +
                       parameters.bias(e, o);
      y[std::size_t(o)] += routing.gates_of(n)[j] * experts.scale()[std::size_t(e)] * v / (1 + std::exp(-v));
    }
  }
}

/// y += sum_e g_e ((P_e x + p_e) o x + Q_e x + q_e)
void add_plain(const MapExperts<FeatureModulation<double>>& experts, std::span<const double> x,
               const Routing<double>& routing, Index n, std::span<double> y) {
  const auto& p = experts.parameters();
  const auto net = [&](const Matrix<double>& whole, const Matrix<double>& a, const Matrix<double>& b,
                       const Matrix<double>& bias, Index e, Index i) {
    double sum = bias(e, i);
    if (whole.rows() == gate_experts) sum += whole(e, i) * x[std::size_t(i)];
    for (Index j = 0; j < in && whole.rows() > gate_experts; ++j) sum += whole(e * in + i, j) * x[std::size_t(j)];
    for (Index r = e * 2; r < e * 2 + 2 && !a.empty(); ++r)
      for (Index j = 0; j < in; ++j) sum += b(r, i) * a(r, j) * x[std::size_t(j)];
    return sum;
  };
  for (std::size_t j = 0; j < routing.experts_of(n).size(); ++j)
    for (Index i = 0; i < in; ++i) {
      const Index e = routing.experts_of(n)[j];
      const double scale = net(p.scale_weight, p.scale_A, p.scale_B, p.scale_bias, e, i),
                   shift = net(p.shift_weight, p.shift_A, p.shift_B, p.shift_bias, e, i);
      y[std::size_t(i)] +=
          experts.scale()[std::size_t(e)] * routing.gates_of(n)[j] * (scale * x[std::size_t(i)] + shift);
    }
}

/// The first experts on x times the mean of the vectors of the others, weighted by their gates.
template <class Experts>
void add_plain(const CompressedExperts<Experts>& experts, std::span<const double> x, const Routing<double>& routing,
               Index n, std::span<double> y) {
  std::vector<double> scaled(x.begin(), x.end());
  const auto chosen = routing.experts_of(n);
  const auto gates = routing.gates_of(n);
  const std::size_t main = std::min(chosen.size(), std::size_t(experts.main()));
  const double sum = std::accumulate(gates.begin() + std::ptrdiff_t(main), gates.end(), 0.0);
  for (std::size_t i = 0; i < x.size() && main < chosen.size(); ++i) {
    double theta = 0;
    for (std::size_t j = main; j < chosen.size(); ++j) {
      const double share = sum == 0 ? 1 / double(chosen.size() - main) : gates[j] / sum;
      theta += share * experts.parameters().compressed(chosen[j], Index(i));
    }
    scaled[i] *= theta;
  }
  Routing<double> first;
  first.start(experts.experts());
  for (std::size_t j = 0; j < main; ++j) first.push(chosen[j], gates[j]);
  first.end_token(), first.finish();
  add_plain(experts.main_experts(), std::span<const double>(scaled), first, 0, y);
}

// ---- what holds for all of them

/// y by the formula alone, from the routing that the layer chose:   x W^T and what the experts add
template <class Layer>
Matrix<double> plain_output(const Layer& layer, const Matrix<double>& x, const Routing<double>& routing) {
  Matrix<double> y(x.rows(), layer.out());
  for (Index n = 0; n < x.rows(); ++n) {
    for (Index o = 0; o < y.cols(); ++o)
      for (Index i = 0; i < in; ++i) y(n, o) += layer.base().weight()(o, i) * x(n, i);
    add_plain(layer.experts(), x.view().row(n), routing, n, y.view().row(n));
  }
  return y;
}

/// Where a layer of these experts under this gate is wrong; "" where it is right.
template <class Experts>
std::string broken_layer(const Experts& experts, const NamedGate& named) {
  laws::FirstFailure failure(named.name);
  auto layer = layer_of(experts, named.gate);
  for (const Index tokens : {0, 1, 9}) {
    const auto x = random_matrix<double>(tokens, in, 3);
    Matrix<double> y(tokens, layer.out());
    auto work = layer.workspace(tokens);
    layer.forward(x, y, work);
    const double difference = support::largest_difference(y, plain_output(layer, x, work.routing));
    failure.expect(difference < 1e-12, tokens, " tokens: the formula differs by ", difference);
  }
  if (!named.gradient_is_derivative) return failure.text();
  const GradientReport report = check_gradients(layer, {.tokens = tokens_checked, .pass = {.training = true}},
                                                [](auto& trace) { return router_z(trace, {.coefficient = 0.3}); });
  failure.expect(report.worst < 1e-8, "gradient of ", report.worst_tensor, " is wrong by ", report.worst);
  Index numbers = tokens_checked * in;  // of d_x
  layer.for_each_tensor([&](std::string_view, View<double> tensor) { numbers += tensor.size(); });
  failure.expect(report.checked + report.moved >= numbers, "only ", report.checked, " of ", numbers,
                 " numbers compared");
  failure.expect(report.moved * 20 < report.checked, report.moved, " numbers left out of ", report.checked);
  return failure.text();
}

template <class Experts>
void check_under_every_gate(const Experts& experts, bool not_negative = false) {
  for (const NamedGate& named : every_gate().gates) {
    if (not_negative && !named.not_negative) continue;
    CHECK(broken_layer(experts, named) == "");
  }
}

}  // namespace

TEST_CASE("Every Score composes with every Select and every Weigh, or there is a reason", "[composition]") {
  const auto& all = every_gate();
  const auto sum = [](const composition::CountsOfKinds& counts) {
    return std::accumulate(counts.begin(), counts.end(), std::size_t(0));
  };
  INFO("Is a part of gating/ new, or gone from the table in every_gate.cpp? Count the parts there again.");
  CHECK(sum(all.scores) == 12);
  CHECK(sum(all.selects) == 12);
  CHECK(sum(all.weighs) == 10);
  CHECK(all.gates.size() + all.others.size() == sum(all.scores) * sum(all.selects) * sum(all.weighs));

  // Scores of a kind are read by what asks for that kind or for less; only scores with a threshold may divide by zero.
  std::size_t expected = 0, selects = 0, weighs = 0;
  for (std::size_t kind = 0; kind < all.scores.size(); ++kind) {
    selects += all.selects[kind], weighs += all.weighs[kind];
    expected += all.scores[kind] * selects * weighs;
  }
  expected -= all.scores.back() * all.may_divide_by_zero + all.would_count_a_column;
  INFO("why_not() in every_gate.cpp refuses other gates than the kinds of its table say.");
  CHECK(all.gates.size() == expected);
  for (const composition::NoGate& other : all.others) {
    INFO(other.name);
    CHECK(other.reason != "");
  }
}

TEST_CASE("Every composition of Score, Select and Weigh keeps the laws of gatings", "[composition]") {
  for (const NamedGate& named : every_gate().gates) {
    INFO(named.name);
    CHECK(laws::broken_gating_law<double>(
              named.gate, gate_experts,
              {.tokens = {0, 1, 7}, .whole_call = named.whole_call, .first_of_equals = false}) == "");
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
TEST_CASE("Triplets under every gate", "[composition]") {
  check_under_every_gate(triplets());
}
TEST_CASE("Element-wise products under every gate", "[composition]") {
  check_under_every_gate(hadamard());
}
TEST_CASE("A shared frozen pair under every gate", "[composition]") {
  check_under_every_gate(shared_frozen());
}
TEST_CASE("Sums of random bases under every gate", "[composition]") {
  check_under_every_gate(random_basis());
}
TEST_CASE("Shards of a pool under every gate", "[composition]") {
  check_under_every_gate(shards());
}
TEST_CASE("Mixtures of a bank under every gate", "[composition]") {
  check_under_every_gate(bank_mixture());
}
TEST_CASE("Kronecker products under every gate", "[composition]") {
  check_under_every_gate(kronecker());
}
TEST_CASE("Factors of tasks under every gate", "[composition]") {
  check_under_every_gate(task_factors());
}
TEST_CASE("Skills of tasks under every gate", "[composition]") {
  check_under_every_gate(skill_factors());
}
TEST_CASE("Rotations under every gate", "[composition]") {
  check_under_every_gate(rotations());
}
TEST_CASE("Decomposed weights under every gate", "[composition]") {
  check_under_every_gate(weight_decomposition());
}
TEST_CASE("Random bases between diagonals under every gate", "[composition]") {
  check_under_every_gate(diagonal_mixture());
}
TEST_CASE("Whole matrices under every gate", "[composition]") {
  check_under_every_gate(whole_matrices());
}
TEST_CASE("Normalized experts under every gate", "[composition]") {
  check_under_every_gate(normalized_maps());
}
TEST_CASE("Modulations under every gate", "[composition]") {
  for (ModulationForm form :
       {ModulationForm::vector, ModulationForm::diagonal, ModulationForm::low_rank, ModulationForm::full})
    check_under_every_gate(modulations(form));
}
TEST_CASE("Compressed experts under every gate that is not negative, as they take shares of gates", "[composition]") {
  for (Index main : {1, 2, 3}) check_under_every_gate(compressed(main), true);
}
