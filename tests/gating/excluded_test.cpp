// SPDX-License-Identifier: MIT
// What is excluded, a token, an expert or a seat, may hold NaN or infinity: nothing else changes, bit for bit.
#include "mole/mole.hpp"
#include "mole/testing/gating_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <algorithm>
#include <functional>
#include <string>

using namespace mole;
using support::random_matrix;
using support::same_bits;

namespace {

constexpr float infinite = std::numeric_limits<float>::infinity(), no_number = std::numeric_limits<float>::quiet_NaN();

/// Everything that a step leaves, without the rows of unrouted tokens.
struct Step {
  std::vector<Matrix<float>> tensors;
  std::vector<double> numbers;
  std::vector<int> experts;
};

/// One step of training over x, whose unrouted rows hold `junk`.
template <class Layer>
Step step(Layer layer, float junk, const Pass& pass) {
  Index tokens = Index(pass.routed.size());
  auto x = random_matrix<float>(tokens, layer.in(), 1), d_y = random_matrix<float>(tokens, layer.out(), 2);
  for (Index n = 0; n < tokens; ++n)
    if (!pass.routes(n)) {
      fill(x.view().middle_rows(n, 1), junk);
      fill(d_y.view().middle_rows(n, 1), Layer::has_trainable_base ? 0 : junk);  // a base serves every token
    }
  Matrix<float> y(tokens, layer.out()), d_x(tokens, layer.in());
  auto work = layer.workspace(tokens);
  auto gradients = layer.gradients({.router = true, .experts = true, .base = Layer::has_trainable_base});
  layer.forward(x, y, work, pass);
  Step result;
  result.numbers = {load_balance(work, {.coefficient = 0.3}), router_z(work, {0.1}), router_entropy(work),
                    importance_cv2(work), double(work.nan_tokens)};
  layer.backward(x, d_y, d_x, gradients, work);
  RoutingStats stats(work.scored_experts());
  stats.observe(work);
  result.numbers.push_back(double(stats.tokens()));
  result.numbers.insert(result.numbers.end(), stats.mass().begin(), stats.mass().end());
  for (Index n = 0; n < tokens; ++n) {
    const auto chosen = std::as_const(work.routing).experts_of(n);
    if (!pass.routes(n)) {
      CHECK(chosen.empty());
      fill(y.view().middle_rows(n, 1), 0);
      fill(d_x.view().middle_rows(n, 1), 0);
    }
    result.experts.insert(result.experts.end(), chosen.begin(), chosen.end());
  }
  result.tensors = {y, d_x};
  layer.for_each_tensor(
      [&](std::string_view, View<float>, View<float> gradient) {
        if (!gradient) return;
        result.tensors.emplace_back(gradient.rows(), gradient.cols());
        copy(gradient, result.tensors.back().view());
      },
      gradients);
  return result;
}

template <class Layer>
void check_unrouted(const Layer& layer, const Pass& more = {}) {
  const std::vector<std::uint8_t> routed{1, 0, 1, 1, 0, 0, 1, 1, 1, 0};
  Pass pass = more;
  pass.training = true;
  pass.routed = routed;
  const Step expected = step(layer, 0.5f, pass);
  for (float junk : {no_number, infinite, -infinite}) {
    const Step found = step(layer, junk, pass);
    CHECK(found.experts == expected.experts);
    CHECK(found.numbers == expected.numbers);
    REQUIRE(found.tensors.size() == expected.tensors.size());
    for (std::size_t i = 0; i < expected.tensors.size(); ++i) {
      CAPTURE(junk, i);
      CHECK(same_bits(found.tensors[i], expected.tensors[i]));
    }
  }
}

template <class Router, class G, class Execution>
auto layer_of(Router router, G gate, Execution execution, Index experts = 4) {
  Rng rng(5);
  return support::with_random_b(
      MixtureLinear(std::move(router), std::move(gate),
                    LowRank<DenseFactors<float>>({.in = 11, .out = 13, .experts = experts, .rank = 3, .alpha = 6}, rng),
                    DenseBase(random_matrix<float>(13, 11, 6)), std::move(execution)));
}

template <class Execution>
void check_all_unrouted(Execution execution) {
  Rng rng(3);
  const auto linear = [&](Index columns) {
    return LinearRouter<float>({.in = 11, .experts = columns, .bias = true}, rng);
  };
  const Gate top{Softmax{}, TopK{2}, Renormalized{}};
  check_unrouted(layer_of(linear(4), top, execution));
  check_unrouted(layer_of(linear(3), Gate{Softmax{}, TopK{2}, Renormalized{}, 1}, execution));  // shared
  check_unrouted(layer_of(linear(4), Gate{Softmax{}, All{}, Raw{}}, execution));
  check_unrouted(layer_of(linear(4), Gate{Sigmoid{}, GroupedTopK<float>(2, 2, 1), Renormalized{}}, execution));
  check_unrouted(layer_of(linear(4), Gate{Softmax{}, ExpertCapacity{TopK{2}}, Renormalized{}}, execution));
  check_unrouted(layer_of(linear(4), Gate{Softmax{}, ExpertChoice{1}, Raw{}}, execution));
  check_unrouted(layer_of(linear(5), Gate{LearnedSparsegen{}, Threshold{.strict = true}, Raw{}}, execution));
  check_unrouted(layer_of(MlpRouter<float>({.in = 11, .hidden = 7, .experts = 4}, rng), top, execution));
  check_unrouted(layer_of(CosineRouter<float>({.in = 11, .experts = 4}, rng), top, execution));
  check_unrouted(layer_of(CosineRouter<float>({.in = 11, .experts = 4, .projection = 6, .learned_scale = true}, rng),
                          top, execution));
  const GruCell<float> cell({.in = 6, .width = 9}, rng);
  check_unrouted(layer_of(RecurrentRouter<float>({.in = 11, .experts = 4}, cell, rng), top, execution));
  check_unrouted(layer_of(RepeatedRouter<float>(linear(2), 2), top, execution));
  const std::vector<int> forced{-1, 2, 1, -1, -1, -1, 3, -1, -1, 0};
  check_unrouted(layer_of(linear(4), top, execution), {.forced = forced});
  check_unrouted(layer_of(linear(4), Gate{Softmax{}, ExpertCapacity{TopK{2}}, Renormalized{}}, execution),
                 {.forced = forced});
  const std::vector<std::uint8_t> mask{1, 1, 0, 1, 0, 1, 1, 1, 0, 1};
  check_unrouted(layer_of(linear(4), top, execution), {.token_mask = mask});
  Matrix<float> weight = random_matrix<float>(13, 11, 6);
  Rng fly(1);
  check_unrouted(support::with_random_b(flylora({.rank = 8, .k = 2}, DenseBase{weight}, fly, execution)));
  check_unrouted(MixtureLinear(LatentRouter<float>(4), top,
                               LowRank<DenseFactors<float>>({.in = 11, .out = 13, .experts = 4, .rank = 1}, fly),
                               DenseBase{weight}, execution));
}

/// The experts and gates of the first token.
template <class G>
std::vector<std::pair<int, float>> of_first(const G& gate, const Matrix<float>& logits, const Pass& pass = {}) {
  return laws::choices(laws::routed(gate, logits, logits.cols() + gate.shared(), pass))[0];
}

}  // namespace

TEST_CASE("What an unrouted token holds changes nothing, under Reference", "[gating]") {
  check_all_unrouted(Reference{});
}
TEST_CASE("What an unrouted token holds changes nothing, under Simd", "[gating]") {
  check_all_unrouted(Simd<>{});
}

TEST_CASE("An expert that is excluded serves nobody, though k is larger than what is left", "[gating]") {
  using Choice = std::vector<std::pair<int, float>>;
  Matrix<float> logits(1, 4);
  const MaskedSoftmax only_second{.allowed = {0, 1, 0, 0}};
  CHECK(of_first(Gate{only_second, TopK{3}, Unit{}}, logits) == Choice{{1, 1.0f}});
  CHECK(of_first(Gate{only_second, TopK{3}, Renormalized{}}, logits) == Choice{{1, 1.0f}});
  CHECK(of_first(Gate{only_second, All{}, Unit{}}, logits) == Choice{{1, 1.0f}});
  CHECK(of_first(Gate{only_second, ExpertChoice{4}, Unit{}}, logits) == Choice{{1, 1.0f}});
  CHECK(of_first(Gate{MaskedSoftmax{.allowed = {0, 0, 0, 0}}, TopK{2}, Unit{}}, logits).empty());
  CHECK_FALSE(Gate{only_second, All{}, Unit{}}.constant_gate(4).has_value());
  for (Index e : {0, 2, 3}) logits(0, e) = -infinite;
  CHECK(of_first(Gate{Softmax{}, TopK{3}, Unit{}}, logits) == Choice{{1, 1.0f}});
  CHECK(of_first(Gate{Sigmoid{}, GroupedTopK<float>(3), Unit{}}, logits) == Choice{{1, 1.0f}});
  CHECK(of_first(Gate{Softmax{}, TopK{3}, Unit{}, 1}, logits) == Choice{{1, 1.0f}, {4, 1.0f}});
}

TEST_CASE("An excluded choice takes no other token's seat", "[gating]") {
  // Token 0 may only have expert 0; its second choice, expert 1, is excluded. Expert 1 has one seat, which token 1
  // wants second.
  Matrix<float> logits(2, 3);
  logits(0, 0) = 1, logits(0, 1) = -infinite, logits(0, 2) = -infinite;
  logits(1, 0) = 2, logits(1, 1) = 1, logits(1, 2) = -2;
  const Gate gate{Softmax{}, ExpertCapacity{TopK{2}, {.fixed = 1}}, Unit{}};
  const auto choices = laws::choices(laws::routed(gate, logits, 3));
  CHECK(choices[0] == std::vector<std::pair<int, float>>{{0, 1.0f}});
  CHECK(choices[1] == std::vector<std::pair<int, float>>{{1, 1.0f}});
}

TEST_CASE("An excluded expert takes no place of a selection, whatever its bias, or if all scores are 0", "[gating]") {
  using Choice = std::vector<std::pair<int, float>>;
  Matrix<float> logits(1, 3);
  logits(0, 0) = -infinite;
  BiasedSigmoid<float> score(3);
  score.bias = {9, 0, 0};
  CHECK(of_first(Gate{score, TopK{2}, Unit{}}, logits) == Choice{{1, 1.0f}, {2, 1.0f}});
  CHECK(of_first(Gate{Sigmoid{}, GroupedTopK<float>(2, 1, 1, {9, 0, 0}), Unit{}}, logits) ==
        Choice{{1, 1.0f}, {2, 1.0f}});
  logits(0, 1) = 200, logits(0, 2) = -200;
  CHECK(of_first(Gate{Softmax{}, TopK{2}, Unit{}}, logits) == Choice{{1, 1.0f}, {2, 1.0f}});
  CHECK(of_first(Gate{Sparsegen{}, TopK{2}, Unit{}}, logits) == Choice{{1, 1.0f}, {2, 1.0f}});
  CHECK(of_first(Gate{MaskedSoftmax{{0, 1, 1}}, TopK{2}, Unit{}}, logits) == Choice{{1, 1.0f}, {2, 1.0f}});
  logits(0, 0) = logits(0, 1) = logits(0, 2) = 0;
  logits(0, 0) = -infinite;
  CHECK(of_first(Gate{Softmax{}, EntropyHybrid{}, Unit{}}, logits).size() == 2);  // even, over the others
}

namespace {

constexpr Index sweep_experts = 5, sweep_tokens = 6;
constexpr int types[] = {0, 1};
constexpr Index sequences[] = {0, 4};
const std::vector<std::uint8_t> sweep_mask{1, 1, 0, 1, 1, 1};
const Pass sweep_pass{.training = true, .token_mask = sweep_mask, .sequence_begin = sequences};

struct NamedLoss {
  std::string name;
  std::function<double(Trace<double>&)> value;
};

/// Every loss, with every option that changes what it looks at.
std::vector<NamedLoss> every_loss(bool column_behind_experts) {
  std::vector<NamedLoss> losses;
  for (int norm : {0, 1, 2})
    for (int count : {0, 1, 2})
      for (int score : {0, 1, 2})
        for (int scope : {0, 1})
          if (score != int(BalanceScore::above_threshold) || column_behind_experts)
            losses.push_back({"load_balance " + std::to_string(norm) + std::to_string(count) + std::to_string(score) +
                                  std::to_string(scope),
                              [=](auto& trace) {
                                return load_balance(trace, {.norm = BalanceNorm(norm),
                                                            .count = BalanceCount(count),
                                                            .score = BalanceScore(score),
                                                            .scope = BalanceScope(scope)});
                              }});
  losses.push_back({"localized_balance", [](auto& trace) { return localized_balance(trace, {.task_types = types}); }});
  losses.push_back({"router_z", [](auto& trace) { return router_z(trace); }});
  for (bool unbiased : {false, true})
    losses.push_back({"importance_cv2", [=](auto& trace) { return importance_cv2(trace, {.unbiased = unbiased}); }});
  for (bool normalized : {false, true})
    for (const Entropy& entropy : {Entropy{}, Entropy{.order = 1.1, .shift = 1e-2, .offset = 1e-3},
                                   Entropy{.family = EntropyFamily::renyi, .order = 2, .shift = 1e-2}})
      losses.push_back({"router_entropy", [=](auto& trace) {
                          return router_entropy(trace, {.normalized = normalized, .entropy = entropy});
                        }});
  if (column_behind_experts)
    losses.push_back({"sparsity_target", [](auto& trace) { return sparsity_target(trace, {.k = 1}); }});
  losses.push_back({"routing_contrastive", [](auto& trace) {
                      const auto x = random_matrix<double>(sweep_tokens, 3, 8);
                      const auto all = random_matrix<double>(sweep_experts, 3, 9);
                      Matrix<double> prototypes(trace.scored_experts(), 3);
                      for (Index e = 0; e < prototypes.rows(); ++e)  // without that of the expert that may be missing
                        std::ranges::copy(all.view().row(e + (prototypes.rows() < sweep_experts && e >= 3)),
                                          prototypes.view().row_data(e));
                      return routing_contrastive<double>(x, prototypes, trace, {}, {});
                    }});
  return losses;
}

/// The logits of some tokens, without the column of `missing`, if there is that.
Matrix<double> logits_without(Index columns, Index missing) {
  const auto all = random_matrix<double>(sweep_tokens, 8, 4, 2);
  Matrix<double> logits(sweep_tokens, columns);
  for (Index n = 0; n < sweep_tokens; ++n)
    for (Index c = 0; c < columns; ++c) logits(n, c) = all(n, c + (missing >= 0 && c >= missing));
  return logits;
}

/// A call of a gate, a loss of it, and the gradients of the loss and of d_gates, if these are wanted.
template <class Execution, class G>
std::pair<double, Trace<double>> differentiated(const G& gate, const Matrix<double>& logits, Index of_experts,
                                                const NamedLoss& loss, bool with_d_gates) {
  auto trace = laws::routed<Execution>(gate, logits, of_experts, sweep_pass);
  for (std::size_t p = 0; with_d_gates && p < trace.d_gate().size(); ++p) trace.d_gate()[p] = double(p % 3) - 0.7;
  const double value = loss.value(trace);
  laws::Harness<G, Execution> harness(gate,
                                      CallSize{.tokens = sweep_tokens,
                                               .pairs = sweep_tokens * of_experts,
                                               .experts = of_experts,
                                               .columns = gate.columns(of_experts)},
                                      sweep_pass);
  gate.backward(trace, harness.call());
  return {value, std::move(trace)};
}

/// Expert 3 is excluded for all tokens, and holds `junk`: losses, gradients and statistics are those of a gate without
/// it.
template <class Execution, class G>
void check_without(const G& gate, const G& smaller, double junk) {
  constexpr Index missing = 3;
  auto logits = logits_without(gate.columns(sweep_experts), -1);
  for (Index n = 0; n < sweep_tokens; ++n) logits(n, missing) = junk;
  const auto rest = logits_without(smaller.columns(sweep_experts - 1), missing);
  for (const NamedLoss& loss : every_loss(gate.columns(sweep_experts) > sweep_experts)) {
    CAPTURE(loss.name, junk);
    const auto [value, trace] = differentiated<Execution>(gate, logits, sweep_experts, loss, true);
    const auto [expected, other] = differentiated<Execution>(smaller, rest, sweep_experts - 1, loss, true);
    CHECK(std::abs(value - expected) <= 1e-13 * std::max(1.0, std::abs(expected)));
    CHECK(trace.nan_tokens == 0);
    for (Index n = 0; n < sweep_tokens; ++n) {
      CHECK(trace.d_logits()(n, missing) == 0);
      for (Index c = 0; c < rest.cols(); ++c)
        CHECK(std::abs(trace.d_logits()(n, c + (c >= missing)) - other.d_logits()(n, c)) < 1e-12);
    }
    RoutingStats stats(sweep_experts), of_other(sweep_experts - 1);
    stats.observe(trace);
    of_other.observe(other);
    for (std::size_t e = 0; e + 1 < std::size_t(sweep_experts); ++e) {
      CHECK(stats.load()[e + (e >= missing)] == of_other.load()[e]);
      CHECK(std::abs(stats.mass()[e + (e >= missing)] - of_other.mass()[e]) < 1e-13);
    }
    CHECK(
        std::ranges::equal(stats.tokens_by_experts().first(std::size_t(sweep_experts)), of_other.tokens_by_experts()));
    CHECK(stats.load_entropy() == of_other.load_entropy());
  }
}

/// Each token excludes another expert, one of them two: gradients are derivatives, and 0 for what is excluded, also of
/// a loss that does not ask.
template <class Execution, class G>
void check_each_token(const G& gate) {
  const Index columns = gate.columns(sweep_experts);
  auto logits = logits_without(columns, -1);
  for (Index n = 0; n < sweep_tokens; ++n) logits(n, n % sweep_experts) = -infinite;
  logits(1, 4) = -infinite;
  for (const NamedLoss& loss : every_loss(columns > sweep_experts)) {
    CAPTURE(loss.name);
    if (loss.name == "sparsity_target") continue;  // its bound is a constant
    auto varied = logits;
    const auto value = [&] { return differentiated<Execution>(gate, varied, sweep_experts, loss, false).first; };
    const auto trace = differentiated<Execution>(gate, logits, sweep_experts, loss, false).second;
    CHECK(std::isfinite(value()));
    for (Index n = 0; n < sweep_tokens; ++n)
      for (Index c = 0; c < columns; ++c) {
        CAPTURE(n, c);
        if (logits(n, c) == -infinite) {
          CHECK(trace.d_logits()(n, c) == 0);
          continue;
        }
        constexpr double step = 1e-6;
        varied(n, c) = logits(n, c) + step;
        const double above = value();
        varied(n, c) = logits(n, c) - step;
        const double below = value();
        varied(n, c) = logits(n, c);
        CHECK(std::abs(trace.d_logits()(n, c) - (above - below) / (2 * step)) < 1e-7);
      }
  }
  const NamedLoss careless{"", [](Trace<double>& trace) {
                             for (auto gradient : {trace.d_scores(), trace.d_logits()})
                               for (Index n = 0; n < sweep_tokens; ++n)
                                 for (double& d : gradient.row(n)) d += 0.5;
                             return 0.0;
                           }};
  const auto trace = differentiated<Execution>(gate, logits, sweep_experts, careless, true).second;
  for (Index n = 0; n < sweep_tokens; ++n)
    for (Index c = 0; c < columns; ++c) {
      CHECK(std::isfinite(trace.d_logits()(n, c)));
      if (logits(n, c) == -infinite) CHECK(trace.d_logits()(n, c) == 0);
    }
}

/// f(score, the same without expert 3) for every score of the library.
template <class F>
void for_each_score(F f) {
  const auto alike = [&](const auto& score) { f(score, score); };
  alike(Softmax{});
  alike(Softmax{.temperature = 0.7, .divisor = 1.3});
  alike(Sigmoid{});
  alike(Identity{});
  alike(Magnitude{});
  alike(L2Normalized{});
  alike(Sparsegen{-1});
  alike(LearnedSparsegen{});
  alike(SoftmaxWithThreshold{0.2});
  f(MaskedSoftmax{{1, 1, 1, 1, 1}}, MaskedSoftmax{{1, 1, 1, 1}});
  BiasedSigmoid<double> biased(sweep_experts), less(sweep_experts - 1);
  biased.bias = {0.1, 0, 0.2, 0.9, 0};
  less.bias = {0.1, 0, 0.2, 0};
  f(biased, less);
}

template <class Execution>
void check_every_score() {
  for_each_score([](const auto& score, const auto& smaller) {
    check_without<Execution>(Gate{score, TopK{2}, Raw{}}, Gate{smaller, TopK{2}, Raw{}}, -infinite);
    check_without<Execution>(Gate{score, TopK{4}, SoftmaxOverChosen{}}, Gate{smaller, TopK{4}, SoftmaxOverChosen{}},
                             -infinite);
    check_each_token<Execution>(Gate{score, TopK{2}, SoftmaxOverChosen{}});
    check_each_token<Execution>(Gate{score, All{}, Raw{}});
  });
  const MaskedSoftmax masked{{1, 1, 1, 0, 1}}, smaller{{1, 1, 1, 1}};
  for (double junk : {double(no_number), double(infinite), -double(infinite), 50.0, 0.0})
    check_without<Execution>(Gate{masked, TopK{2}, Renormalized{}}, Gate{smaller, TopK{2}, Renormalized{}}, junk);
}

}  // namespace

TEST_CASE("Losses, gradients and statistics are those without an excluded expert, under Reference", "[gating]") {
  check_every_score<Reference>();
}
TEST_CASE("Losses, gradients and statistics are those without an excluded expert, under Simd", "[gating]") {
  check_every_score<Simd<>>();
}

TEST_CASE("What an expert holds that the score does not allow changes no bit", "[gating]") {
  const Gate gate{MaskedSoftmax{{1, 1, 1, 0, 1}}, TopK{2}, Renormalized{}};
  auto logits = logits_without(sweep_experts, -1);
  for (const NamedLoss& loss : every_loss(false)) {
    const auto expected = differentiated<Simd<>>(gate, logits, sweep_experts, loss, true);
    for (double junk : {double(no_number), double(infinite), -double(infinite), 50.0}) {
      for (Index n = 0; n < sweep_tokens; ++n) logits(n, 3) = junk;
      const auto found = differentiated<Simd<>>(gate, logits, sweep_experts, loss, true);
      CAPTURE(loss.name, junk);
      CHECK(found.first == expected.first);
      CHECK(std::ranges::equal(found.second.routing.gates(), expected.second.routing.gates()));
      CHECK(same_bits(found.second.d_logits(), expected.second.d_logits()));
      CHECK(found.second.nan_tokens == 0);
    }
  }
}

TEST_CASE("Losses of tokens that exclude every expert are 0", "[gating]") {
  for_each_score([](const auto& score, const auto&) {
    const Gate gate{score, TopK{2}, Raw{}};
    auto logits = logits_without(gate.columns(sweep_experts), -1);
    for (Index n = 0; n < sweep_tokens; ++n) std::fill_n(logits.view().row_data(n), sweep_experts, -infinite);
    for (const NamedLoss& loss : every_loss(gate.columns(sweep_experts) > sweep_experts)) {
      CAPTURE(loss.name);
      const auto [value, trace] = differentiated<Reference>(gate, logits, sweep_experts, loss, true);
      CHECK(value == 0);
      for (Index n = 0; n < sweep_tokens; ++n)
        for (double d : trace.d_logits().row(n)) CHECK(d == 0);
    }
  });
}

TEST_CASE("A forced expert that is excluded has no part in losses, and its logit no gradient", "[gating]") {
  const std::vector<int> forced{3, -1, -1, 3, -1, -1};
  for_each_score([&](const auto& score, const auto&) {
    const Gate gate{score, TopK{2}, StraightThrough{}};
    auto logits = logits_without(gate.columns(sweep_experts), -1);
    for (Index n = 0; n < sweep_tokens; ++n) logits(n, 3) = -infinite;
    for (const NamedLoss& loss : every_loss(gate.columns(sweep_experts) > sweep_experts)) {
      CAPTURE(loss.name);
      auto trace =
          laws::routed<Reference>(gate, logits, sweep_experts, {.forced = forced, .sequence_begin = sequences});
      std::ranges::fill(trace.d_gate(), 0.5);
      CHECK(std::isfinite(loss.value(trace)));
      laws::Harness harness(gate,
                            CallSize{.tokens = sweep_tokens,
                                     .pairs = 5 * sweep_tokens,
                                     .experts = sweep_experts,
                                     .columns = gate.columns(sweep_experts)},
                            trace.pass);
      gate.backward(trace, harness.call());
      for (Index n = 0; n < sweep_tokens; ++n) {
        CHECK(trace.d_logits()(n, 3) == 0);
        for (double d : trace.d_logits().row(n)) CHECK(std::isfinite(d));
      }
    }
  });
}

namespace {

/// NaN is last wherever it stands: its score is NaN, the others are those without it, and the laws of gatings hold.
template <class T, class Execution, class Score>
void check_nan(const Score& score) {
  const Gate top{score, TopK{3}, Unit{}};
  const Index columns = top.columns(8);
  for (Index nan = 0; nan < 8; ++nan)
    for (Index second : {nan, (nan + 3) % 8}) {
      auto logits = support::random_matrix<T>(3, columns, 12, 2);
      for (Index n = 0; n < 3; ++n) logits(n, nan) = logits(n, second) = -std::numeric_limits<T>::infinity();
      const auto without = laws::routed<Execution>(top, logits, 8);
      for (Index n = 0; n < 3; ++n) logits(n, nan) = logits(n, second) = std::numeric_limits<T>::quiet_NaN();
      auto trace = laws::routed<Execution>(top, logits, 8);
      CAPTURE(nan, second);
      CHECK(trace.routing.pairs() == 9);
      for (Index n = 0; n < 3; ++n)
        for (int e : trace.routing.experts_of(n)) CHECK((e != nan && e != second));
      CHECK(trace.nan_tokens == 3);
      for (Index n = 0; n < 3; ++n)
        for (Index c = 0; c < columns; ++c) {
          if (c == nan || c == second)
            CHECK(std::isnan(trace.scores()(n, c)));
          else
            CHECK(std::abs(trace.scores()(n, c) - without.scores()(n, c)) <= 8 * std::numeric_limits<T>::epsilon());
          CHECK(trace.d_scores()(n, c) == 0);
        }
    }
  CHECK(laws::broken_gating_law<T, Execution>(top, 8, {.tokens = {0, 7}}) == "");
}

/// The laws of gatings, which want NaN last wherever it stands, hold with every selection.
template <class T, class Execution, class Score>
void check_nan_in_selections(const Score& score) {
  const auto keeps_laws = [&](const auto& select) {
    const Gate gate{score, select, Unit{}};
    CHECK(laws::broken_gating_law<T, Execution>(gate, 8, {.tokens = {0, 7}}) == "");
  };
  keeps_laws(TopK{2});
  keeps_laws(TopK{7});
  keeps_laws(TopK{8});
  keeps_laws(NthBest{{0, 1, 2}});
  keeps_laws(Threshold{.threshold = 0.1, .min_k = 2});
  keeps_laws(TopP{.p = 0.3});
  keeps_laws(RelativeThreshold{.ratio = 0.9, .k = 3});
  keeps_laws(EntropyHybrid{});
  keeps_laws(GroupedTopK<T>(2, 4, 2));
  keeps_laws(GroupedTopK<T>(4, 4, 2));
}

}  // namespace

TEMPLATE_TEST_CASE("NaN is last wherever it stands, in every selection", "[gating]", float, double) {
  check_nan_in_selections<TestType, Reference>(Softmax{});
  check_nan_in_selections<TestType, Simd<>>(Softmax{});
  check_nan_in_selections<TestType, Simd<>>(Identity{});  // shares that are no probabilities
}

TEMPLATE_TEST_CASE("NaN is last wherever it stands, in every score", "[gating]", float, double) {
  using T = TestType;
  const auto check = [](const auto& score) {
    check_nan<T, Reference>(score);
    check_nan<T, Simd<>>(score);
  };
  check(Softmax{.temperature = 0.7});
  check(MaskedSoftmax{{1, 1, 1, 1, 1, 1, 1, 1}});
  check(Sigmoid{});
  check(BiasedSigmoid<T>(8));
  check(Identity{});
  check(Magnitude{});
  check(L2Normalized{});
  check(Sparsegen{-1});
  check(LearnedSparsegen{1});
  check(SoftmaxWithThreshold{});
}

TEST_CASE("Sparsegen passes over a NaN, wherever it stands", "[gating]") {
  for (std::size_t at : {0u, 1u, 2u}) {
    std::vector<float> logits{1, 1, 1}, scores(3);
    logits[at] = no_number;
    Sparsegen{}.forward(std::span<const float>(logits), std::span<float>(scores));
    for (std::size_t e = 0; e < 3; ++e) CHECK(scores[e] == (e == at ? 0 : 0.5f));
  }
}

TEST_CASE("A kept group gives its NaN and excluded experts before those of other groups", "[gating]") {
  for (const std::vector<float>& scores : {std::vector<float>{.5f, no_number, .1f, .1f},
                                           {no_number, .5f, .1f, .1f},
                                           {.5f, -infinite, .1f, .1f},
                                           {.1f, .1f, .5f, no_number},
                                           {.1f, .1f, -infinite, .5f}}) {
    std::vector<int> chosen(2);
    GroupedTopK<float>(2, 2, 1).select(scores, 4, chosen);
    const int best = int(std::ranges::find(scores, .5f) - scores.begin());
    CHECK(chosen == std::vector<int>{best, best ^ 1});
  }
}

TEST_CASE("An excluded token takes no place that another wants, though both have a score of 0", "[gating]") {
  Matrix<float> logits(2, 2);
  logits(0, 0) = -infinite, logits(1, 0) = -1e4f;
  const auto choices = laws::choices(laws::routed(Gate{Softmax{}, ExpertChoice{.factor = 1}, Unit{}}, logits, 2));
  CHECK(choices[0] == std::vector<std::pair<int, float>>{{1, 1.0f}});
  CHECK(choices[1] == std::vector<std::pair<int, float>>{{0, 1.0f}});
}

TEST_CASE("A forced expert serves with the gate of one that serves alone, whatever its logit", "[gating]") {
  const std::vector<int> forced{2};
  const auto gate_of = [&](const auto& gate, float logit) {
    Matrix<float> logits(1, gate.columns(4));
    logits(0, 2) = logit;
    const auto chosen = laws::choices(laws::routed(gate, logits, 4, {.forced = forced}))[0];
    REQUIRE(chosen.size() == 1);
    CHECK(chosen[0].first == 2);
    return chosen[0].second;
  };
  for (float logit : {0.0f, -1e4f, -infinite, no_number}) {
    CHECK(gate_of(Gate{Softmax{}, TopK{2}, Renormalized{}}, logit) == 1);
    CHECK(gate_of(Gate{Sigmoid{}, TopK{2}, Renormalized{2.5}}, logit) == 2.5f);
    CHECK(gate_of(Gate{Identity{}, TopK{2}, SoftmaxOverChosen{}}, logit) == 1);
    CHECK(gate_of(Gate{SoftmaxWithThreshold{}, LearnedThreshold{}, Shifted{}}, logit) == 1);
    CHECK(gate_of(Gate{Softmax{}, ExpertCapacity{TopK{2}}, Renormalized{}}, logit) == 1);
  }
}

TEST_CASE("A forced token takes no seat that another token wants", "[gating]") {
  Matrix<float> logits(3, 2);  // all want expert 0 first
  for (Index n = 0; n < 3; ++n) logits(n, 0) = float(3 - n);
  const std::vector<int> forced{1, -1, -1};
  const Gate capacity{Softmax{}, ExpertCapacity{TopK{1}, {.fixed = 2}}, Unit{}};
  auto choices = laws::choices(laws::routed(capacity, logits, 2, {.forced = forced}));
  CHECK(choices[0] == std::vector<std::pair<int, float>>{{1, 1.0f}});
  CHECK(choices[1] == std::vector<std::pair<int, float>>{{0, 1.0f}});
  CHECK(choices[2] == std::vector<std::pair<int, float>>{{0, 1.0f}});
  const Gate choice{Softmax{}, ExpertChoice{.factor = 1}, Unit{}};  // each expert takes one of two tokens
  choices = laws::choices(laws::routed(choice, logits, 2, {.forced = forced}));
  CHECK(choices[1] == std::vector<std::pair<int, float>>{{0, 1.0f}});
}
