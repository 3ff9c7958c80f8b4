// SPDX-License-Identifier: MIT
#include "mole/gating/gate.hpp"

#include "mole/execution/simd.hpp"
#include "mole/gating/score/identity.hpp"
#include "mole/gating/score/sigmoid.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/all.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/gating/weigh/unit.hpp"
#include "mole/testing/gating_laws.hpp"
#include "support/catch.hpp"

using namespace mole;

namespace {

/// A score with one column more than experts: it halves the scores of a token whose last logit is above 0.
struct Halving {
  static constexpr Index extra = 1;
  template <class T>
  void forward(std::span<const T> logits, std::span<T> scores) const {
    const T factor = logits.back() > 0 ? T(0.5) : T(1);
    for (std::size_t e = 0; e < logits.size(); ++e) scores[e] = factor * logits[e];
  }
  template <class T>
  void backward(std::span<const T> logits, std::span<const T>, std::span<const T> d_scores,
                std::span<T> d_logits) const {
    const T factor = logits.back() > 0 ? T(0.5) : T(1);
    for (std::size_t e = 0; e < logits.size(); ++e) d_logits[e] += factor * d_scores[e];
  }
};

}  // namespace

TEMPLATE_TEST_CASE("Six gates of usual parts keep the laws of gatings, for 1 to 129 experts", "[gating]", float,
                   double) {
  using T = TestType;
  const Index experts = GENERATE(1, 2, 3, 8, 129);
  const Index k = std::min<Index>(experts, GENERATE(1, 2, 8, 129));
  SECTION("softmax, top-k, renormalized") {
    CHECK(laws::broken_gating_law<T>(Gate{Softmax{}, TopK{k}, Renormalized{}}, experts) == "");
  }
  SECTION("softmax, top-k, raw") {
    CHECK(laws::broken_gating_law<T>(Gate{Softmax{0.5}, TopK{k}, Raw{}}, experts) == "");
  }
  SECTION("softmax, top-k, unit") {
    CHECK(laws::broken_gating_law<T>(Gate{Softmax{}, TopK{k}, Unit{}}, experts) == "");
  }
  SECTION("sigmoid, top-k, renormalized") {
    CHECK(laws::broken_gating_law<T>(Gate{Sigmoid{}, TopK{k}, Renormalized{}}, experts) == "");
  }
  SECTION("softmax, all, raw") {
    CHECK(laws::broken_gating_law<T>(Gate{Softmax{}, All{}, Raw{}}, experts) == "");
  }
  SECTION("identity, all, unit") {
    CHECK(laws::broken_gating_law<T>(Gate{Identity{}, All{}, Unit{}}, experts) == "");
  }
}

TEST_CASE("A gate with a token of four experts gives the published numbers", "[gating]") {
  Matrix<double> logits(1, 4);
  for (Index e = 0; e < 4; ++e) logits(0, e) = double(2 - e);
  const auto trace = laws::routed(Gate{Softmax{}, TopK{2}, Renormalized{}}, logits, 4);
  REQUIRE(trace.routing.pairs() == 2);
  CHECK(trace.routing.expert(0) == 0);
  CHECK(trace.routing.expert(1) == 1);
  CHECK(std::abs(trace.routing.gate(0) - 0.731058579) < 1e-9);
  CHECK(std::abs(trace.routing.gate(1) - 0.268941421) < 1e-9);
}

TEST_CASE("A score may ask for a column of its own beside the experts", "[gating]") {
  const Gate gate{Halving{}, TopK{1}, Raw{}};
  CHECK(gate.columns(4) == 5);
  Matrix<double> logits(2, 4);
  logits(0, 1) = logits(1, 1) = 3;
  logits(1, 3) = 9;  // not an expert, however large
  const auto trace = laws::routed(gate, logits, 3);
  CHECK(trace.routing.expert(0) == 1);
  CHECK(trace.routing.gate(0) == 3);
  CHECK(trace.routing.expert(1) == 1);
  CHECK(trace.routing.gate(1) == 1.5);

  Matrix<double> many(2 * kernel::step_of<kernel::DefaultArchitecture, double> + 1, 4);  // whole vectors of tokens
  for (Index n = 0; n < many.rows(); ++n) std::copy_n(logits.view().row_data(n % 2), 4, many.view().row_data(n));
  const auto by_vectors = laws::routed<Simd<>>(gate, many, 3);
  for (Index n = 0; n < many.rows(); ++n) {
    CHECK(by_vectors.routing.expert(n) == 1);
    CHECK(by_vectors.routing.gate(n) == (n % 2 == 0 ? 3 : 1.5));
  }
}

TEST_CASE("A gate reports how many tokens that count have a NaN", "[gating]") {
  const Gate gate{Softmax{}, TopK{2}, Raw{}};
  const std::vector<std::uint8_t> flags{1, 0, 1, 1};
  Matrix<double> logits(4, 3);
  logits(0, 1) = logits(1, 0) = logits(3, 2) = std::nan("");
  CHECK(laws::routed(gate, logits, 3).nan_tokens == 3);
  CHECK(laws::routed(gate, logits, 3, {.token_mask = flags}).nan_tokens == 2);
  CHECK(laws::routed(gate, logits, 3, {.routed = flags}).nan_tokens == 2);
}

TEST_CASE("A gate's options are checked against the number of experts", "[gating]") {
  const auto code = [](auto gate, Index experts) {
    try {
      gate.check(experts);
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode{};
  };
  CHECK(code(Gate{Softmax{}, TopK{0}, Raw{}}, 4) == ErrorCode::option);
  CHECK(code(Gate{Softmax{}, TopK{5}, Raw{}}, 4) == ErrorCode::option);
  CHECK(code(Gate{Softmax{0}, TopK{1}, Raw{}}, 4) == ErrorCode::option);
  CHECK(code(Gate{Softmax{-1}, TopK{1}, Raw{}}, 4) == ErrorCode::option);
  CHECK(code(Gate{Softmax{}, TopK{4}, Raw{}}, 4) == ErrorCode{});
  CHECK(code(Gate{Softmax{}, TopK{4}, Raw{}, 1}, 4) == ErrorCode::option);  // one of the four is shared
  CHECK(code(Gate{Softmax{}, TopK{3}, Raw{}, 1}, 4) == ErrorCode{});
  for (Index shared : {-1, 0, 3, 4, 5}) {
    CAPTURE(shared);
    CHECK(code(Gate{Softmax{}, All{}, Raw{}, shared}, 4) ==
          (shared == 0 || shared == 3 ? ErrorCode{} : ErrorCode::option));
  }
}
