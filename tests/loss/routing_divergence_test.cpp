// SPDX-License-Identifier: MIT
#include "mole/loss/routing_divergence.hpp"

#include "loss_trace.hpp"
#include "support/catch.hpp"

namespace {

using namespace mole;
using namespace mole::test;

/// Tokens with these probabilities of four experts.
Trace<double> trace_of(const std::vector<std::vector<double>>& tokens, const Pass& pass = {}) {
  Trace<double> trace = empty_trace(Index(tokens.size()), 4, 0, pass);
  for (Index n = 0; n < trace.tokens(); ++n) std::ranges::copy(tokens[std::size_t(n)], trace.scores().row_data(n));
  return trace;
}

const std::vector<std::vector<double>> uneven{{0.7, 0.1, 0.1, 0.1}, {0.4, 0.3, 0.2, 0.1}, {0.5, 0.05, 0.05, 0.4}};

long double entropy(const std::vector<double>& p) {
  long double sum = 0;
  for (double x : p) sum -= (long double)(x)*std::log((long double)(x) + 1e-9L);
  return sum;
}

}  // namespace

TEST_CASE("The divergence is 0 for decided tokens that are spread evenly, and 1 for one token or undecided ones",
          "[loss]") {
  auto spread = trace_of({{1, 0, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}, {0, 1, 0, 0}});
  CHECK(std::abs(routing_divergence(spread)) < 1e-8);
  auto undecided = trace_of({{0.25, 0.25, 0.25, 0.25}, {0.25, 0.25, 0.25, 0.25}});
  CHECK(near(routing_divergence(undecided), 1));
  auto one = trace_of({uneven[0]});
  CHECK(near(routing_divergence(one, {.coefficient = 3}), 3));
  for (double d : one.d_scores().row(0)) CHECK(std::abs(d) < 1e-14);
  Trace<double> nobody = empty_trace(0, 4);
  CHECK(routing_divergence(nobody) == 0);
  Trace<double> single = empty_trace(3, 1);
  CHECK(routing_divergence(single) == 0);
}

TEST_CASE("The divergence has its value from entropies in plain loops, within its bounds", "[loss]") {
  const std::vector<double> mean{1.6 / 3, 0.45 / 3, 0.35 / 3, 0.6 / 3};
  const long double most = std::log(4.0L);
  for (const auto& [balanced, certain] : {std::pair{1.0, 0.0}, {0.9, 0.1}, {0.8, 0.7}, {1.0, 0.8}}) {
    long double of_tokens = 0;
    for (const auto& p : uneven) of_tokens += std::max(entropy(p), certain * most) / 3;
    const long double divergence = std::min(entropy(mean), balanced * most) - of_tokens;
    const long double expected = std::max(0.0L, balanced - certain - divergence / most);
    auto trace = trace_of(uneven);
    CHECK(near(routing_divergence(trace, {.balanced = balanced, .certain = certain}), double(expected)));
  }
}

TEST_CASE("The divergence adds the gradient of its value, of tokens that count", "[loss]") {
  const std::vector<std::uint8_t> mask{1, 1, 0, 1, 1};
  auto tokens = uneven;
  tokens.push_back({0.02, 0.9, 0.05, 0.03});
  tokens.push_back({0.3, 0.2, 0.3, 0.2});
  for (const auto& [balanced, certain] : {std::pair{1.0, 0.0}, {0.9, 0.1}, {1.0, 0.6}, {0.9, 0.0}}) {
    const RoutingDivergenceOptions options{.coefficient = 0.3, .balanced = balanced, .certain = certain};
    auto trace = trace_of(tokens, {.token_mask = mask});
    REQUIRE(routing_divergence(trace, options) > 0);
    const std::vector<double> gradient = copied(elements(trace.d_scores()));
    CHECK(gradient_error(elements(trace.scores()), gradient, [&] { return routing_divergence(trace, options); }) <
          gradient_tolerance);
    CHECK(all_zero(trace.d_scores().row(2)));
  }
}

TEST_CASE("The divergence is that of what counts, and is added to what is there", "[loss]") {
  const auto loss = [](auto& trace) {
    for (double& score : elements(trace.scores())) score *= score < 0.4 ? 0.1 : 0.5;  // below 1 in all
    return routing_divergence(trace, {.coefficient = 0.3});
  };
  CHECK(error_of_what_is_left_out(loss) < value_tolerance);
  CHECK(error_of_addition(loss) < value_tolerance);
  Trace<double> excluding = trace_of(uneven), smaller = empty_trace(3, 3);
  for (Index n = 0; n < 3; ++n) {
    excluding.logits()(n, 1) = -std::numeric_limits<double>::infinity();
    for (Index e = 0; e < 3; ++e) smaller.scores()(n, e) = uneven[std::size_t(n)][std::size_t(e > 0 ? e + 1 : e)];
  }
  CHECK(near(routing_divergence(excluding), routing_divergence(smaller)));
  for (Index n = 0; n < 3; ++n) CHECK(excluding.d_scores()(n, 1) == 0);
}

TEST_CASE("The divergence refuses bounds that do not fit", "[loss]") {
  auto trace = trace_of(uneven);
  CHECK_THROWS_AS(routing_divergence(trace, {.balanced = 0.5, .certain = 0.6}), Error);
  CHECK_THROWS_AS(routing_divergence(trace, {.balanced = 1.1}), Error);
  CHECK_THROWS_AS(routing_divergence(trace, {.certain = -0.1}), Error);
  CHECK_THROWS_AS(routing_divergence(trace, {.shift = -1}), Error);
  CHECK_THROWS_AS(routing_divergence(trace, {.coefficient = 1e31}), Error);
}
