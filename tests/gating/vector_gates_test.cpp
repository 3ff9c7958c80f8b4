// SPDX-License-Identifier: MIT
// A gate under an execution with vectors against the same gate under Reference.
#include "mole/execution/simd.hpp"
#include "mole/execution/thread_pool.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/identity.hpp"
#include "mole/gating/score/l2_normalized.hpp"
#include "mole/gating/score/sigmoid.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/all.hpp"
#include "mole/gating/select/nth_best.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/select/top_p.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/gating/weigh/softmax_over_chosen.hpp"
#include "mole/gating/weigh/unit.hpp"
#include "mole/testing/gating_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"
#include "support/seed.hpp"
#include "support/tolerance.hpp"

using namespace mole;

namespace {

enum class Rows { ordinary, special };

/// Multiples of 1/8, so that rounding makes no ties and breaks none; of special rows, half have NaN or infinities.
template <class T>
Matrix<T> some_logits(Index tokens, Index experts, Rows rows, Rng& rng) {
  constexpr T infinity = std::numeric_limits<T>::infinity();
  Matrix<T> logits(tokens, experts);
  for (Index n = 0; n < tokens; ++n) {
    for (Index e = 0; e < experts; ++e) logits(n, e) = T(rng() % 64) / 8 - 4;
    if (rows == Rows::ordinary) continue;
    const Index at = Index(rng() % std::uint64_t(experts));
    switch (rng() % 10) {
      case 0:
        logits(n, at) = std::numeric_limits<T>::quiet_NaN();
        break;
      case 1:
        logits(n, at) = infinity;
        break;
      case 2:
        logits(n, at) = -infinity;
        break;
      case 3:
        fill(logits.view().middle_rows(n, 1), -infinity);
        break;
      case 4:
        fill(logits.view().middle_rows(n, 1), std::numeric_limits<T>::quiet_NaN());
        break;
      default:
        break;
    }
  }
  return logits;
}

/// Both NaN, or within some roundings of each other.
template <class T>
bool near(std::span<const T> a, std::span<const T> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](T x, T y) {
    if (std::isnan(x) || std::isnan(y)) return std::isnan(x) && std::isnan(y);
    return x == y || std::abs(x - y) <= 16 * std::numeric_limits<T>::epsilon() * std::max(T(1), std::abs(x));
  });
}

template <class T>
bool same_choice(const Trace<T>& a, const Trace<T>& b) {
  bool same = a.nan_tokens == b.nan_tokens && a.tokens() == b.tokens();
  for (Index n = 0; same && n < a.tokens(); ++n) {
    const auto one = a.routing.experts_of(n), other = b.routing.experts_of(n);
    same = std::equal(one.begin(), one.end(), other.begin(), other.end());
    same &= near(a.scores().row(n), b.scores().row(n));
    same &= near(a.routing.gates_of(n), b.routing.gates_of(n));
  }
  return same;
}

/// The bits of all that the gate says about token n.
template <class T>
std::vector<unsigned char> bits_of(const Trace<T>& trace, Index n) {
  std::vector<unsigned char> bits;
  const auto append = [&](const auto& numbers) {
    const auto bytes = std::as_bytes(numbers);
    for (std::byte b : bytes) bits.push_back(static_cast<unsigned char>(b));
  };
  append(trace.scores().row(n));
  append(trace.routing.experts_of(n));
  append(trace.routing.gates_of(n));
  return bits;
}

template <class T>
constexpr Index lanes = kernel::step_of<kernel::DefaultArchitecture, T>;

/// Calls check(gate) for every part that has a form with vectors, for the choices k and p, and for parts without.
template <class Check>
void for_each_gate(Index experts, Check check) {
  for (Index k : {Index(1), Index(2), Index(3), Index(8), experts}) {
    if (k > experts) continue;
    check(Gate{Softmax{}, TopK{k}, Renormalized{}});
    check(Gate{Softmax{0.5}, TopK{k}, Raw{}});
    check(Gate{Sigmoid{}, TopK{k}, Renormalized{}});
    check(Gate{Identity{}, TopK{k}, Unit{}});
    check(Gate{L2Normalized{}, TopK{k}, SoftmaxOverChosen{}});
    check(Gate{Sigmoid{}, TopP{.p = 1.3, .max_k = k}, Raw{}});
  }
  check(Gate{Softmax{}, All{}, Raw{}});
  check(Gate{Softmax{}, NthBest{{experts / 2}}, Raw{}});
  check(Gate{Softmax{}, TopP{.p = 0.4}, Raw{}});
  for (bool crossing : {false, true})
    for (bool strict : {false, true}) {  // sums of logits are exact, and meet p
      const TopP select{.p = 6,
                        .crossing = crossing,
                        .min_k = std::min<Index>(2, experts),
                        .max_k = std::min<Index>(8, experts),
                        .strict = strict};
      check(Gate{Identity{}, select, Raw{}});
    }
}

}  // namespace

TEMPLATE_TEST_CASE("A gate with vectors chooses what Reference chooses, with the same numbers up to rounding",
                   "[gating]", float, double) {
  using T = TestType;
  test::TestRng rng;
  for (Index experts : {1, 2, 3, 7, 8, 9, 15, 16, 17, 64, 129, 513})
    for (Index tokens : {Index(0), Index(1), lanes<T> - 1, lanes<T>, lanes<T> + 1, 3 * lanes<T> + 2})
      for (Rows rows : {Rows::ordinary, Rows::special}) {
        const auto logits = some_logits<T>(tokens, experts, rows, rng);
        CAPTURE(experts, tokens, rows);
        for_each_gate(experts, [&](const auto& gate) {
          CHECK(same_choice(laws::routed<Simd<>>(gate, logits, experts), laws::routed(gate, logits, experts)));
        });
      }
}

TEMPLATE_TEST_CASE("A token's bits do not depend on its neighbors, its place or their number", "[gating]", float,
                   double) {
  using T = TestType;
  test::TestRng rng;
  for (Index experts : {1, 2, 3, 7, 8, 9, 15, 16, 17, 64, 129, 513}) {
    const Index tokens = 3 * lanes<T> + 2;
    const auto logits = some_logits<T>(tokens, experts, Rows::special, rng);
    const auto order = support::reversed(tokens);
    const auto turned = support::permuted(logits, order);
    CAPTURE(experts);
    for_each_gate(experts, [&](const auto& gate) {
      const auto all = laws::routed<Simd<>>(gate, logits, experts), back = laws::routed<Simd<>>(gate, turned, experts);
      bool same = true;
      for (Index n = 0; n < tokens; ++n) {
        Matrix<T> alone(1, experts);
        std::copy_n(logits.view().row_data(n), experts, alone.data());
        same &= bits_of(laws::routed<Simd<>>(gate, alone, experts), 0) == bits_of(all, n);
        same &= bits_of(back, tokens - 1 - n) == bits_of(all, n);
      }
      CHECK(same);
    });
  }
}

TEMPLATE_TEST_CASE("Vectors are at work in the other tests", "[gating]", float, double) {
  using T = TestType;
  using Vector = kernel::Vector<kernel::DefaultArchitecture, T>;
  using Loops = kernel::VectorLoops<kernel::DefaultArchitecture>;
  STATIC_REQUIRE(LoopedScorePolicy<Softmax, Vector> && LoopedScorePolicy<Softmax, T, Loops>);
  STATIC_REQUIRE(LoopedScorePolicy<Sigmoid, Vector> && LoopedScorePolicy<Sigmoid, T, Loops>);
  STATIC_REQUIRE(LoopedScorePolicy<Identity, Vector> && LoopedScorePolicy<Identity, T, Loops>);
  STATIC_REQUIRE(LaneSelectPolicy<TopK, Vector> && LaneSelectPolicy<TopP, Vector>);
  STATIC_REQUIRE_FALSE(LaneSelectPolicy<All, Vector>);
  STATIC_REQUIRE_FALSE(LaneSelectPolicy<NthBest, Vector>);
}

TEMPLATE_TEST_CASE("Vectors of one element score and select as plain numbers do", "[gating]", float, double) {
  using T = TestType;
  test::TestRng rng;
  const Index tokens = 9;
  for (Index experts : {1, 3, 17, 129, 513})
    for (Rows rows : {Rows::ordinary, Rows::special}) {
      const auto logits = some_logits<T>(tokens, experts, rows, rng);
      const Index most = std::min<Index>(8, experts);
      const auto scores = [&](auto forms, const auto& score) {
        Matrix<T> result(tokens, experts);
        std::vector<unsigned char> nan(static_cast<std::size_t>(tokens));
        forms.forward(score, View<const T>(logits), result.view(), std::span(nan));
        return result;
      };
      const auto chosen = [&](auto forms, const auto& select, const Matrix<T>& from) {
        Matrix<int> result(tokens, 8);
        std::vector<int> count(static_cast<std::size_t>(tokens));
        forms.select(select, View<const T>(from), experts, result.view(), std::span(count));
        std::vector<int> all;
        for (Index n = 0; n < tokens; ++n) {
          all.push_back(count[std::size_t(n)]);
          all.insert(all.end(), result.view().row_data(n), result.view().row_data(n) + all.back());
        }
        return all;
      };
      const auto agree = [&](const auto& score) {
        const Matrix<T> plain = scores(ScoreRows<void>{}, score), vectors = scores(ScoreRows<kernel::Scalar>{}, score);
        const bool same = near(std::span<const T>(plain.elements()), std::span<const T>(vectors.elements()));
        const auto same_choice_of = [&](const auto& select) {
          return chosen(SelectRows<void>{}, select, plain) == chosen(SelectRows<kernel::Scalar>{}, select, plain);
        };
        return same && same_choice_of(TopK{most}) && same_choice_of(TopP{.p = 0.4, .max_k = most}) &&
               same_choice_of(TopP{.p = 0.4, .crossing = false, .max_k = most, .strict = false});
      };
      CAPTURE(experts, rows);
      CHECK(agree(Softmax{}));
      CHECK(agree(Sigmoid{}));
      CHECK(agree(Identity{}));
      const Gate gate{Softmax{}, TopK{std::min<Index>(2, experts)}, Renormalized{}};
      CHECK(
          same_choice(laws::routed<Simd<kernel::Scalar>>(gate, logits, experts), laws::routed(gate, logits, experts)));
    }
}

TEMPLATE_TEST_CASE("A NaN is reported in every row of a wider matrix, and no longer when it has gone", "[gating]",
                   float, double) {
  using T = TestType;
  Matrix<T> wide(4, 3 * lanes<T> + 1), scores(4, lanes<T> + 1);
  const View<T> logits = wide.view().middle_cols(0, scores.cols());
  std::vector<unsigned char> nan(4);
  for (Index n = 0; n < 4; ++n) {
    logits(n, 1) = std::numeric_limits<T>::quiet_NaN();
    ScoreRows<kernel::DefaultArchitecture>::forward(Softmax{}, View<const T>(logits), scores.view(), std::span(nan));
    for (Index row = 0; row < 4; ++row) CHECK((nan[std::size_t(row)] != 0) == (row == n));
    logits(n, 1) = 0;
  }
}

TEMPLATE_TEST_CASE("Gates with vectors keep the laws of gatings", "[gating]", float, double) {
  using T = TestType;
  const Index experts = GENERATE(1, 2, 3, 8, 129);
  const Index k = std::min<Index>(experts, GENERATE(1, 2, 8));
  SECTION("softmax, top-k, renormalized") {
    CHECK(laws::broken_gating_law<T, Simd<>>(Gate{Softmax{}, TopK{k}, Renormalized{}}, experts) == "");
  }
  SECTION("sigmoid, all, raw") {
    CHECK(laws::broken_gating_law<T, Simd<>>(Gate{Sigmoid{}, All{}, Raw{}}, experts) == "");
  }
}

TEMPLATE_TEST_CASE("The gradient of a gate with vectors is Reference's up to rounding", "[gating]", float, double) {
  using T = TestType;
  test::TestRng rng;
  const auto gradient = [](const auto& gate, auto execution, Trace<T>& trace, std::uint64_t seed) {
    Rng upstream(seed);
    trace.start_d_gate();
    fill_uniform(View<T>(trace.d_gate(), 1, trace.routing.pairs()), 1, upstream);
    fill_uniform(trace.d_scores(), 1, upstream);
    fill_uniform(trace.d_logits(), 1, upstream);
    laws::Harness<std::remove_cvref_t<decltype(gate)>, decltype(execution)> harness(gate, trace.tokens());
    auto call = harness.call();
    gate.backward(trace, call);
    const auto d_logits = std::as_const(trace).d_logits();
    return std::vector<T>(d_logits.data(), d_logits.data() + d_logits.size());
  };
  for (Index experts : {1, 3, 8, 16, 17, 64, 129}) {
    const auto logits = some_logits<T>(lanes<T> + 3, experts, Rows::ordinary, rng);
    CAPTURE(experts);
    for_each_gate(experts, [&](const auto& gate) {
      auto trace = laws::routed(gate, logits, experts);
      const auto found = gradient(gate, Simd<>{}, trace, 3), expected = gradient(gate, Reference{}, trace, 3);
      double worst = 0;
      for (std::size_t i = 0; i < found.size(); ++i) worst = std::max(worst, double(std::abs(found[i] - expected[i])));
      CHECK(worst <= test::Tolerance<T>::layer);
    });
  }
}

TEST_CASE("A gate's bits do not depend on the number of threads", "[gating][threads]") {
  test::TestRng rng;
  const Index tokens = 4500, experts = 8;  // several chunks
  const auto logits = some_logits<float>(tokens, experts, Rows::special, rng);
  const Gate gate{Softmax{}, TopK{2}, Renormalized{}};
  const auto alone = laws::routed<Simd<>>(gate, logits, experts);
  Trace<float> shared({.tokens = tokens, .pairs = 2 * tokens, .experts = experts, .columns = experts});
  shared.start(tokens, {});
  std::copy_n(logits.data(), logits.size(), shared.logits().data());
  OwnedScratch scratch(gate, {.tokens = tokens, .pairs = 2 * tokens});
  const Simd execution{ThreadPool{3}};
  gate.choose(shared, Call{execution, shared.pass, *scratch});
  bool same = shared.nan_tokens == alone.nan_tokens;
  for (Index n = 0; n < tokens; ++n) same &= bits_of(shared, n) == bits_of(alone, n);
  CHECK(same);
}

namespace {
/// A score and a selection of a user, who knows nothing of vectors.
struct Doubling {
  template <class T>
  void forward(std::span<const T> logits, std::span<T> scores) const {
    for (std::size_t e = 0; e < logits.size(); ++e) scores[e] = 2 * logits[e];
  }
  template <class T>
  void backward(std::span<const T>, std::span<const T>, std::span<const T> d_scores, std::span<T> d_logits) const {
    for (std::size_t e = 0; e < d_scores.size(); ++e) d_logits[e] += 2 * d_scores[e];
  }
};
struct LastExpert {
  Index max_chosen(Index) const { return 1; }
  template <class T>
  Index select(std::span<const T>, Index experts, std::span<int> chosen) const {
    chosen[0] = int(experts) - 1;
    return 1;
  }
};
}  // namespace

TEMPLATE_TEST_CASE("Parts with the scalar form only work beside parts with vectors", "[gating]", float, double) {
  using T = TestType;
  test::TestRng rng;
  for (Index experts : {3, 40}) {
    const auto logits = some_logits<T>(2 * lanes<T> + 1, experts, Rows::special, rng);
    const Gate score{Doubling{}, TopK{2}, Renormalized{}};
    CHECK(same_choice(laws::routed<Simd<>>(score, logits, experts), laws::routed(score, logits, experts)));
    const Gate select{Softmax{}, LastExpert{}, Raw{}};
    CHECK(same_choice(laws::routed<Simd<>>(select, logits, experts), laws::routed(select, logits, experts)));
  }
}
