// SPDX-License-Identifier: MIT
#include "mole/adapt/prefix_mask.hpp"

#include "core/error_code.hpp"
#include "mole/core/matrix.hpp"
#include "mole/testing/central_differences.hpp"
#include "mole/testing/random_matrix.hpp"
#include "support/catch.hpp"

#include <vector>

using namespace mole;

namespace {

/// Of five experts, the last one shared; token 2 has nobody but it.
Routing<double> routing_of_five() {
  Routing<double> routing;
  routing.start(5);
  const std::vector<std::vector<int>> chosen{{2, 0, 3, 4}, {1, 4}, {4}, {0, 1, 4}};
  double gate = 0.9;
  for (const auto& experts : chosen) {
    for (int e : experts) routing.push(e, gate *= 0.8);
    routing.end_token();
  }
  routing.finish();
  return routing;
}

}  // namespace

TEST_CASE("Outside of training the largest logit says how many experts a token keeps, whole", "[adapt]") {
  const Routing<double> routing = routing_of_five();
  Matrix<double> logits(4, 3);
  logits(0, 1) = 1;                 // two
  logits(1, 2) = 1;                 // three: as many as there are
  logits(3, 0) = logits(3, 1) = 2;  // a tie: one
  Routing<double> masked;
  CHECK(PrefixMask{.penalty = 2, .shared = 1}.forward(routing, logits, masked, {}) == 2 * (2 + 1 + 0 + 1) / 4.0);
  const std::vector<std::vector<int>> expected{{2, 0, 4}, {1, 4}, {4}, {0, 4}};
  for (Index n = 0; n < 4; ++n) {
    const auto experts = masked.experts_of(n);
    CHECK(std::vector<int>(experts.begin(), experts.end()) == expected[std::size_t(n)]);
    for (std::size_t i = 0; i + 1 < experts.size(); ++i) CHECK(masked.gates_of(n)[i] == routing.gates_of(n)[i]);
    CHECK(masked.gates_of(n).back() == routing.gates_of(n).back());
  }
  logits(0, 1) = std::nan("");
  PrefixMask{.shared = 1}.forward(routing, logits, masked, {});
  CHECK(masked.experts_of(0).size() == 2);
}

TEST_CASE("In training masks are the shares of all longer prefixes, between 0 and 1, the first one 1", "[adapt]") {
  const Routing<double> routing = routing_of_five();
  const auto logits = laws::random_matrix<double>(4, 3, 1);
  Routing<double> masked;
  const Pass pass{.training = true, .seed = 5};
  const double value = PrefixMask{.temperature = 0.7, .penalty = 1, .shared = 1}.forward(routing, logits, masked, pass);
  REQUIRE(masked.pairs() == routing.pairs());
  double sum = 0;
  for (Index n = 0; n < 4; ++n) {
    double before = 1;
    for (std::size_t i = 0; i + 1 < routing.experts_of(n).size(); ++i) {
      const double mask = masked.gates_of(n)[i] / routing.gates_of(n)[i];
      if (i == 0) CHECK(std::abs(mask - 1) < 1e-15);
      CHECK(mask <= before + 1e-15);
      CHECK(mask > 0);
      sum += before = mask;
    }
    CHECK(masked.gates_of(n).back() == routing.gates_of(n).back());
  }
  CHECK(std::abs(value - sum / 4) < 1e-14);
}

TEST_CASE("At a small temperature a mask is a sample: prefixes come as often as their softmax says", "[adapt]") {
  Routing<double> routing;
  routing.start(3);
  constexpr Index samples = 6000;
  Matrix<double> logits(samples, 3);
  for (Index n = 0; n < samples; ++n) {
    for (int e : {0, 1, 2}) routing.push(e, 1);
    routing.end_token();
    logits(n, 1) = 1, logits(n, 2) = -0.5;
  }
  routing.finish();
  Routing<double> masked;
  PrefixMask{.temperature = 1e-3}.forward(routing, logits, masked, {.training = true, .seed = 3});
  std::vector<double> counts(3);
  for (Index n = 0; n < samples; ++n) {
    double length = 0;
    for (double gate : masked.gates_of(n)) length += gate;
    counts[std::size_t(std::lround(length)) - 1] += 1;
  }
  double all = 0, chi = 0;
  for (Index c = 0; c < 3; ++c) all += std::exp(logits(0, c));
  for (Index c = 0; c < 3; ++c) {
    const double expected = samples * std::exp(logits(0, c)) / all;
    chi += (counts[std::size_t(c)] - expected) * (counts[std::size_t(c)] - expected) / expected;
  }
  CHECK(chi < 13.8);  // one in a thousand, of two degrees of freedom
}

TEST_CASE("PrefixMask has the gradients of its gates and logits, and of its penalty over tokens that count",
          "[adapt]") {
  Routing<double> routing = routing_of_five();
  auto logits = laws::random_matrix<double>(4, 3, 1);
  const std::vector<std::uint8_t> mask{1, 0, 1, 1};
  const Pass pass{.training = true, .seed = 5, .token_mask = mask};
  const PrefixMask prefix{.temperature = 0.7, .penalty = 0.3, .shared = 1};
  std::vector<double> weights;
  for (Index p = 0; p < routing.pairs(); ++p) weights.push_back(0.1 + 0.2 * double(p % 4));
  const auto value = [&] {
    Routing<double> masked;
    double sum = prefix.forward(routing, logits, masked, pass);
    for (Index p = 0; p < masked.pairs(); ++p) sum += weights[std::size_t(p)] * masked.gate(p);
    return sum;
  };
  std::vector<double> d_gate(weights.size(), 0.0);
  Matrix<double> d_logits(4, 3);
  prefix.backward(routing, logits, weights, d_gate, d_logits, pass);
  CHECK(laws::gradient_error(logits.elements(), d_logits.elements(), value) < laws::gradient_tolerance);
  CHECK(laws::gradient_error(routing.gates(), d_gate, value) < laws::gradient_tolerance);
}

TEST_CASE("PrefixMask refuses sizes and options that do not fit", "[adapt]") {
  const Routing<double> routing = routing_of_five();
  Routing<double> masked;
  const auto code = [&](const PrefixMask& mask, Index rows, Index cols) {
    return test::code_of([&] { mask.forward(routing, Matrix<double>(rows, cols), masked, {}); });
  };
  CHECK_FALSE(code({.shared = 1}, 4, 3));
  CHECK(code({.shared = 1}, 3, 3) == ErrorCode::shape);
  CHECK(code({.shared = 1}, 4, 2) == ErrorCode::shape);
  CHECK(code({.shared = 0}, 4, 3) == ErrorCode::shape);  // four experts of token 0
  CHECK(code({.shared = 6}, 4, 3) == ErrorCode::option);
  CHECK(code({.temperature = 0, .shared = 1}, 4, 3) == ErrorCode::option);
  const std::vector<double> d(std::size_t(routing.pairs()), 0.0);
  CHECK(test::code_of([&] { PrefixMask{.shared = 1}.backward(routing, Matrix<double>(4, 3), d, {}, {}, {}); }) ==
        ErrorCode::order);
  const Pass training{.training = true};
  CHECK(test::code_of([&] { PrefixMask{.shared = 1}.backward(routing, Matrix<double>(4, 3), {}, {}, {}, training); }) ==
        ErrorCode::shape);
}
