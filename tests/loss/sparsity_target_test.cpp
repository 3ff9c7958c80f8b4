// SPDX-License-Identifier: MIT
#include "mole/loss/sparsity_target.hpp"

#include "loss_trace.hpp"
#include "mole/gating/score/sparsegen.hpp"
#include "support/catch.hpp"

#include <limits>

namespace {

using namespace mole;
using namespace mole::test;

/// One token with logits [1, 3, 2, 0] and this lambda.
Trace<double> known_trace(double lambda) {
  Trace<double> trace = empty_trace(1, 4, 1);
  const double logits[] = {1, 3, 2, 0};
  for (Index e = 0; e < 4; ++e) trace.logits()(0, e) = logits[e];
  trace.scores()(0, 4) = lambda;
  return trace;
}

Index experts_at(double lambda, std::span<const double> logits) {
  std::vector<double> scores(logits.size());
  Sparsegen{lambda}.forward(logits, std::span<double>(scores));
  return std::count_if(scores.begin(), scores.end(), [](double score) { return score > 0; });
}

}  // namespace

TEST_CASE("A lambda below what k experts need costs the difference", "[loss]") {
  for (const auto& [k, lower] : {std::pair<Index, double>{1, 0}, {2, -2}, {3, -5}}) {
    Trace<double> below = known_trace(lower - 0.5), at = known_trace(lower), above = known_trace(lower + 0.25);
    CHECK(near(sparsity_target(below, {.coefficient = 3, .k = k}), 1.5));
    CHECK(below.d_scores()(0, 4) == -3);
    CHECK(all_zero(below.d_scores().row(0).first(4)));
    CHECK(all_zero(elements(below.d_logits())));
    for (Trace<double>* enough : {&at, &above}) {
      CHECK(sparsity_target(*enough, {.k = k}) == 0);
      CHECK(all_zero(elements(enough->d_scores())));
    }
  }
}

TEST_CASE("At the lambda that is asked for Sparsegen keeps k experts, and below it more", "[loss]") {
  Rng rng(3);
  std::vector<double> logits(7);
  for (int trial = 0; trial < 20; ++trial) {
    for (double& logit : logits) logit = 2 * unit_interval(rng());
    for (Index k = 1; k < 7; ++k) {
      const double lower = detail::lambda_for(std::span<const double>(logits), k);
      CHECK(experts_at(lower - 1e-9, logits) > k);
      if (lower + 1e-9 < 1) CHECK(experts_at(lower + 1e-9, logits) <= k);
    }
  }
}

TEST_CASE("Equal logits have their turns one after the other", "[loss]") {
  const std::vector<double> logits{1, 2, 2, 1, 2};
  CHECK(detail::lambda_for(std::span<const double>(logits), 2) == 1 - (2 + 2 - 2 * 2));
  CHECK(detail::lambda_for(std::span<const double>(logits), 3) == 1 - (2 + 2 + 2 - 3 * 1));
  CHECK(detail::lambda_for(std::span<const double>(logits), 4) == 1 - (2 + 2 + 2 + 1 - 4 * 1));
}

TEST_CASE("The target adds the gradient of its value", "[loss]") {
  const std::vector<std::uint8_t> mask{1, 1, 0, 1, 1, 1, 1};
  for (Index k : {Index(1), Index(2), Index(4)}) {
    INFO("k " << k);
    const SparsityTargetOptions options{.coefficient = 0.7, .k = k};
    Trace<double> trace = random_trace(7, 5, 1, {.token_mask = mask});
    Rng rng(8);
    for (Index n = 0; n < 7; ++n)  // now below what is asked for, now above it
      trace.scores()(n, 5) = detail::lambda_for(std::as_const(trace).logits().row(n).first(5), k) +
                             (n % 2 == 1 ? 1 : -1) * (0.1 + unit_interval(rng()));
    CHECK(sparsity_target(trace, options) > 0);
    const std::vector<double> gradient = copied(elements(trace.d_scores()));
    CHECK(gradient_error(elements(trace.scores()), gradient, [&] { return sparsity_target(trace, options); }) <
          gradient_tolerance);
    CHECK(all_zero(trace.d_scores().row(1)));
    CHECK(all_zero(trace.d_scores().row(2)));
  }
}

TEST_CASE("Without a token that counts there is no target to miss", "[loss]") {
  const std::vector<std::uint8_t> none(3, 0);
  Trace<double> empty = empty_trace(0, 4, 1), masked = random_trace(3, 4, 1, {.token_mask = none});
  CHECK(sparsity_target(empty) == 0);
  CHECK(sparsity_target(masked) == 0);
  CHECK(all_zero(elements(masked.d_scores())));
}

TEST_CASE("A target for all experts, for none, or for scores without a lambda is refused", "[loss]") {
  Trace<double> trace = random_trace(3, 4, 1), without = random_trace(3, 4);
  CHECK_THROWS_AS(sparsity_target(trace, {.k = 0}), Error);
  CHECK_THROWS_AS(sparsity_target(trace, {.k = 4}), Error);
  CHECK_THROWS_AS(sparsity_target(without), Error);
}

TEST_CASE("The target is that of the tokens that count, and of the experts with a logit", "[loss]") {
  for (Index k : {1, 2, 4}) {
    const auto loss = [&](Trace<double>& trace) {
      for (Index n = 0; n < trace.tokens(); ++n) trace.scores()(n, 5) -= 20;  // below what is asked for
      return sparsity_target(trace, {.coefficient = 0.7, .k = k});
    };
    CHECK(error_of_what_is_left_out(loss, 1) < value_tolerance);
  }
}

TEST_CASE("The target adds to the gradients that are there", "[loss]") {
  const auto loss = [](Trace<double>& trace) {
    for (Index n = 0; n < trace.tokens(); ++n) trace.scores()(n, 5) = -20;
    return sparsity_target(trace, {.coefficient = 0.7});
  };
  CHECK(error_of_addition(loss, 1) < value_tolerance);
}
