// SPDX-License-Identifier: MIT
// What a batch and shared experts change in a gate.
#include "core/error_code.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/expert_choice.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/gating/weigh/unit.hpp"
#include "mole/layer/check_gradients.hpp"
#include "mole/mole.hpp"
#include "mole/testing/gating_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace mole;

namespace {

const Gate top2{Softmax{}, TopK{2}, Renormalized{}};

template <class T, class Execution>
auto layer_of(Gate<Softmax, TopK, Renormalized> gate, Execution execution) {
  Rng rng(71);
  const Index routed = 6 - gate.shared();
  LowRank<DenseFactors<T>> experts({.in = 20, .out = 12, .experts = 6, .rank = 3, .alpha = 6}, rng);
  fill_uniform(experts.parameters().lora_B.view(), 1, rng);
  return MixtureLinear(LinearRouter<T>({.in = 20, .experts = routed}, rng), gate, experts,
                       DenseBase(support::random_matrix<T>(12, 20, 72)), execution);
}

/// Half of every chosen expert.
struct Halves : Unit {
  double constant_gate() const { return 0.5; }

  template <class T>
  void forward(std::span<const T>, std::span<const int>, std::span<T> weights) const {
    std::fill(weights.begin(), weights.end(), T(0.5));
  }
};

/// A selection of a user, who gives every expert to every token, whatever the pass says.
struct AllToAll {
  Index max_pairs(Index tokens, Index experts) const { return tokens * experts; }
  void select_whole_call(View<const double> scores, Index experts, const Pass&, auto&& emit, auto&) const {
    for (Index n = 0; n < scores.rows(); ++n)
      for (int e = 0; e < experts; ++e) emit(n, e);
  }
};

/// Does every one of some tokens, with NaN and infinite logits among them, have all experts with one weight? A logit of
/// -infinity would exclude its expert.
template <class Execution, class G>
bool all_alike(const G& gate, Index experts) {
  constexpr double infinity = std::numeric_limits<double>::infinity(), least = std::numeric_limits<double>::lowest();
  const Index columns = gate.columns(experts);
  Matrix<double> logits = support::random_matrix<double>(24, columns, 75, 3);
  for (Index e = 0; e < columns; ++e) logits(1, e) = std::nan(""), logits(2, e) = least;
  logits(3, 0) = std::nan(""), logits(4, columns - 1) = least, logits(5, columns - 1) = infinity;
  const auto trace = laws::routed<Execution>(gate, logits, experts);
  const std::span<const double> weights = trace.routing.gates();
  return trace.routing.pairs() == 24 * experts &&
         std::all_of(weights.begin(), weights.end(), [&](double w) { return w == weights[0]; });
}

template <class G>
void check_constant(const G& gate, Index experts, std::optional<double> weight) {
  gate.check(experts);
  CHECK(gate.constant_gate(experts) == weight);
  CHECK(gate.token_dependence(experts).empty() == weight.has_value());
  CHECK(all_alike<Reference>(gate, experts) == weight.has_value());
}

}  // namespace

TEST_CASE("A pass rules experts out for some tokens, as logits of -infinity do", "[gating]") {
  const Index tokens = 40, experts = 5;
  auto logits = support::random_matrix<double>(tokens, experts, 91, 2);
  std::vector<std::uint8_t> allowed(std::size_t(tokens * experts), 1);
  for (std::size_t i = 0; i < allowed.size(); i += 3) allowed[i] = 0;
  for (Index e = 0; e < experts; ++e) allowed[std::size_t(7 * experts + e)] = 0;  // token 7 has nobody
  auto excluded = logits;
  for (Index i = 0; i < logits.size(); ++i)
    if (allowed[std::size_t(i)] == 0) excluded.data()[i] = -std::numeric_limits<double>::infinity();
  const auto check_same = [&](const auto& gate) {
    const auto by_pass = laws::routed(gate, logits, experts, {.allowed = allowed});
    CHECK(laws::choices(by_pass) == laws::choices(laws::routed(gate, excluded, experts)));
    CHECK(by_pass.routing.experts_of(7).empty());
    CHECK(by_pass.excluded(0, 0));
    CHECK_FALSE(by_pass.excluded(0, 1));
  };
  check_same(Gate{Softmax{}, TopK{2}, Renormalized{}});
  check_same(Gate{Softmax{}, TopK{4}, Renormalized{}});
  check_same(Gate{Sigmoid{}, ExpertChoice{}, Raw{}});
  check_same(Gate{Softmax{}, ExpertCapacity{TopK{2}}, Renormalized{}});
  for (const auto& row :
       laws::choices(laws::routed(Gate{Softmax{}, TopK{2}, Renormalized{}}, logits, experts, {.allowed = allowed}))) {
    double sum = 0;
    for (const auto& [e, gate] : row) sum += gate;
    CHECK((row.empty() ? sum == 0 : std::abs(sum - 1) < 1e-14));
  }
}

TEMPLATE_TEST_CASE("Tokens that are not routed keep the base's bits, forward and backward", "[gating]", Reference,
                   Simd<>) {
  using T = float;
  const auto layer = layer_of<T>(top2, TestType{});
  const auto x = support::random_matrix<T>(40, 20, 73), d_y = support::random_matrix<T>(40, 12, 74);
  std::vector<std::uint8_t> flags(40);
  for (std::size_t n = 0; n < 40; ++n) flags[n] = n % 3 != 1;
  Matrix<T> y(40, 12), d_x(40, 20), base_y(40, 12), base_d_x(40, 20);
  auto work = layer.workspace(40);
  auto gradients = layer.gradients();
  layer.forward(x, y, work, {.routed = flags});
  layer.backward(x, d_y, d_x, gradients, work);
  Call<TestType, NoScratch> call{layer.execution(), work.pass, work.base_scratch};
  layer.base().forward(x, base_y, call);
  auto base_gradients = layer.gradients().base;
  layer.base().backward(x, d_y, base_d_x, base_gradients, call);
  for (Index n = 0; n < 40; ++n) {
    const bool untouched = support::same_bits(y.view().middle_rows(n, 1), base_y.view().middle_rows(n, 1)) &&
                           support::same_bits(d_x.view().middle_rows(n, 1), base_d_x.view().middle_rows(n, 1));
    CHECK(untouched == (flags[std::size_t(n)] == 0));
  }
}

TEST_CASE("A forced expert serves its token alone", "[gating]") {
  const auto logits = support::random_matrix<double>(9, 5, 75);
  std::vector<int> forced(9, -1);
  forced[2] = 4;
  forced[5] = 0;
  const auto trace = laws::routed(top2, logits, 5, {.forced = forced}), free = laws::routed(top2, logits, 5);
  for (Index n = 0; n < 9; ++n) {
    const auto experts = trace.routing.experts_of(n);
    if (forced[std::size_t(n)] < 0) {
      CHECK(std::equal(experts.begin(), experts.end(), free.routing.experts_of(n).begin()));
      continue;
    }
    REQUIRE(experts.size() == 1);
    CHECK(experts[0] == forced[std::size_t(n)]);
    CHECK(trace.routing.gates_of(n)[0] == 1);
  }
  const auto by_experts = laws::routed(Gate{Softmax{}, ExpertChoice{1}, Unit{}}, logits, 5, {.forced = forced});
  CHECK(by_experts.routing.experts_of(2).size() == 1);
  CHECK(by_experts.routing.experts_of(2)[0] == 4);
}

TEST_CASE("A selection of the whole call has room for a forced expert of every token, and none for unrouted ones",
          "[gating]") {
  const auto logits = support::random_matrix<double>(8, 4, 75);
  const std::vector<int> forced{0, 1, 2, 3, 3, 3, 0, 1};
  const std::vector<std::uint8_t> flags{1, 1, 0, 1, 0, 1, 1, 0};
  const auto check = [&](const auto& gate, const Pass& pass) {
    const auto trace = laws::routed(gate, logits, 4 + gate.shared(), pass);
    for (Index n = 0; n < 8; ++n) {
      const auto experts = trace.routing.experts_of(n);
      REQUIRE(Index(experts.size()) == (pass.routes(n) ? 1 + gate.shared() : 0));
      if (pass.routes(n)) CHECK(experts[0] == forced[std::size_t(n)]);
    }
  };
  for (Index shared : {0, 1})
    for (const Pass& pass : {Pass{.forced = forced}, Pass{.routed = flags, .forced = forced}}) {
      check(Gate{Softmax{}, TopK{2}, Unit{}, shared}, pass);
      check(Gate{Softmax{}, ExpertChoice{0.25}, Unit{}, shared}, pass);
      check(Gate{Softmax{}, ExpertChoice{.factor = 0.25, .per_sequence = true}, Unit{}, shared}, pass);
      check(Gate{Softmax{}, ExpertCapacity{TopK{1}, {.fixed = 1}}, Unit{}, shared}, pass);
    }
}

TEST_CASE("A selection of the whole call gives no expert to a token that has no choice", "[gating]") {
  const std::vector<int> forced{-1, 2, -1};
  const std::vector<std::uint8_t> flags{1, 1, 0};
  const auto trace = laws::routed(Gate{Softmax{}, AllToAll{}, Unit{}}, support::random_matrix<double>(3, 4, 75), 4,
                                  {.routed = flags, .forced = forced});
  CHECK(trace.routing.experts_of(0).size() == 4);
  REQUIRE(trace.routing.experts_of(1).size() == 1);
  CHECK(trace.routing.experts_of(1)[0] == 2);
  CHECK(trace.routing.experts_of(2).empty());
}

TEST_CASE("Shared experts serve every routed token with weight 1", "[gating]") {
  const Gate gate(top2.score, top2.select, top2.weigh, 2);
  const auto logits = support::random_matrix<double>(9, 5, 76);
  const std::vector<std::uint8_t> flags{1, 1, 0, 1, 1, 1, 1, 1, 1};
  const auto trace = laws::routed(gate, logits, 7, {.routed = flags}), alone = laws::routed(top2, logits, 5);
  for (Index n = 0; n < 9; ++n) {
    const auto experts = trace.routing.experts_of(n);
    if (n == 2) {
      CHECK(experts.empty());
      continue;
    }
    REQUIRE(experts.size() == 4);
    for (std::size_t j = 0; j < 2; ++j) {
      CHECK(experts[j] == alone.routing.experts_of(n)[j]);
      CHECK(trace.routing.gates_of(n)[j] == alone.routing.gates_of(n)[j]);
    }
    CHECK((experts[2] == 5 && experts[3] == 6));
    CHECK((trace.routing.gates_of(n)[2] == 1 && trace.routing.gates_of(n)[3] == 1));
  }
}

TEST_CASE("A layer with shared experts has exact gradients, and losses that leave them out", "[gating]") {
  const Gate gate(top2.score, top2.select, top2.weigh, 2);
  auto layer = layer_of<double>(gate, Reference{});
  const auto x = support::random_matrix<double>(15, 20, 77);
  CHECK(check_gradients(layer).worst < 1e-6);
  auto work = layer.workspace(15);
  Matrix<double> y(15, 12);
  layer.forward(x, y, work);
  CHECK(work.scored_experts() == 4);
  // Over the four routed experts alone: at most 4, and with counts of two choices a token.
  const double balance = load_balance(static_cast<Trace<double>&>(work), {.norm = BalanceNorm::k_at_uniform});
  double expected = 0;
  for (Index e = 0; e < 4; ++e) {
    double mean = 0;
    for (Index n = 0; n < 15; ++n) mean += work.scores()(n, e) / 15;
    expected += 4 * mean * double(work.routing.load(e)) / 15;
  }
  CHECK(std::abs(balance - expected) < 1e-12);
}

TEST_CASE("A layer refuses flags and forced experts that do not fit", "[gating]") {
  const auto layer = layer_of<float>(top2, Reference{});
  const auto x = support::random_matrix<float>(4, 20, 78);
  Matrix<float> y(4, 12);
  auto work = layer.workspace(4);
  const std::vector<std::uint8_t> flags(3, 1);
  const std::vector<int> too_few(3, -1), too_large{0, 6, -1, -1}, too_small{0, -2, -1, -1};
  CHECK(test::code_of([&] { layer.forward(x, y, work, {.routed = flags}); }) == ErrorCode::shape);
  CHECK(test::code_of([&] { layer.forward(x, y, work, {.forced = too_few}); }) == ErrorCode::shape);
  CHECK(test::code_of([&] { layer.forward(x, y, work, {.forced = too_large}); }) == ErrorCode::option);
  CHECK(test::code_of([&] { layer.forward(x, y, work, {.forced = too_small}); }) == ErrorCode::option);

  const auto sharing = layer_of<float>(Gate(top2.score, top2.select, top2.weigh, 2), Reference{});  // experts 4 and 5
  auto sharing_work = sharing.workspace(4);
  for (int expert : {3, 4, 5, 6}) {
    const std::vector<int> forced{0, expert, -1, -1};
    CAPTURE(expert);
    const std::string text = test::text_of([&] { sharing.forward(x, y, sharing_work, {.forced = forced}); });
    CHECK(text == (expert < 4 ? "" : "forward: expected forced experts from -1 to 3, found " + std::to_string(expert)));
  }
}

TEST_CASE("A gate is constant where every token has all experts with one weight, and says so", "[gating]") {
  const auto unit = [](auto select, Index shared = 0) { return Gate{Identity{}, std::move(select), Unit{}, shared}; };
  SECTION("by its weights") {
    check_constant(unit(All{}), 5, 1.0);
    check_constant(Gate{Softmax{}, All{}, StraightThrough{}}, 5, 1.0);
    check_constant(Gate{Identity{}, All{}, Halves{}}, 5, 0.5);
    check_constant(Gate{Softmax{}, All{}, Raw{}}, 5, {});
    check_constant(Gate{Softmax{}, TopK{5}, Renormalized{}}, 5, {});
  }
  SECTION("by its selection") {
    check_constant(unit(TopK{5}), 5, 1.0);
    check_constant(unit(TopK{4}), 5, {});
    check_constant(unit(TopK{20}), 20, 1.0);
    CHECK(all_alike<Simd<>>(unit(TopK{5}), 5));  // lanes with a NaN among them
    check_constant(unit(GroupedTopK<double>(6, 3, 3)), 6, 1.0);
    check_constant(unit(GroupedTopK<double>(5, 3, 3)), 6, {});
    check_constant(unit(GroupedTopK<double>(4, 3, 2)), 6, {});
    check_constant(unit(TopP{.p = 0, .min_k = 5}), 5, 1.0);
    check_constant(unit(TopP{.p = 1e9}), 5, {});  // a NaN crosses it
    check_constant(unit(Threshold{.threshold = 1e9, .min_k = 5}), 5, 1.0);
    check_constant(unit(Threshold{.threshold = -std::numeric_limits<double>::infinity()}), 5, {});
    check_constant(unit(RelativeThreshold{.ratio = 0, .k = 5}), 5, {});
    check_constant(unit(RelativeThreshold{.ratio = 1, .k = 1}), 1, 1.0);
    check_constant(unit(EntropyHybrid{.confident = {.min_k = 5}}), 5, 1.0);
    check_constant(unit(EntropyHybrid{}), 5, {});
  }
  SECTION("by capacity and by the choice of experts") {
    check_constant(unit(ExpertCapacity{TopK{5}, CapacityOptions{.factor = 1}}), 5, 1.0);
    check_constant(unit(ExpertCapacity{TopK{5}, CapacityOptions{.factor = 0.9}}), 5, {});
    check_constant(unit(ExpertCapacity{TopK{5}, CapacityOptions{.fixed = 9}}), 5, {});
    check_constant(unit(ExpertCapacity{TopK{4}, CapacityOptions{.factor = 9}}), 5, {});
    check_constant(unit(ExpertChoice{5}), 5, 1.0);
    check_constant(unit(ExpertChoice{4.5}), 5, {});
  }
  SECTION("with shared experts, whose weight is 1") {
    check_constant(unit(TopK{3}, 2), 5, 1.0);
    check_constant(unit(TopK{2}, 2), 5, {});
    check_constant(Gate{Identity{}, All{}, Halves{}, 2}, 5, {});
    CHECK(Gate(Identity{}, All{}, Halves{}, 2).token_dependence(5).find("shared") != std::string::npos);
  }
}
