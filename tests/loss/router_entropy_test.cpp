// SPDX-License-Identifier: MIT
#include "mole/loss/router_entropy.hpp"

#include "loss_trace.hpp"
#include "support/catch.hpp"

namespace {

using namespace mole;
using namespace mole::test;

/// One token with softmax([2, 1, 0, -1]).
Trace<double> known_trace() {
  Trace<double> trace = empty_trace(1, 4);
  double sum = 0;
  for (Index e = 0; e < 4; ++e) sum += trace.scores()(0, e) = std::exp(2.0 - double(e));
  for (double& score : trace.scores().row(0)) score /= sum;
  return trace;
}

}  // namespace

TEST_CASE("Known scores have their known entropy", "[loss]") {
  Trace<double> trace = known_trace();
  CHECK(near(router_entropy(trace), 0.947536964, 1e-9));
  CHECK(near(router_entropy(trace, {.normalized = true}), 0.683503439, 1e-9));
  CHECK(near(router_entropy(trace, {.coefficient = -2}), -2 * 0.947536964, 1e-8));
}

TEST_CASE("A uniform token has log E, a decided one 0", "[loss]") {
  Trace<double> trace = empty_trace(1, 8);
  fill(trace.scores(), 0.125);
  CHECK(near(router_entropy(trace), std::log(8)));
  CHECK(near(router_entropy(trace, {.normalized = true}), 1));

  Trace<double> decided = empty_trace(1, 3);
  decided.scores()(0, 1) = 1;
  CHECK(router_entropy(decided) == 0);
  CHECK(decided.d_scores()(0, 0) == 0);
  CHECK(decided.d_scores()(0, 1) == -1);
  CHECK(decided.d_scores()(0, 2) == 0);
}

TEST_CASE("The entropy adds the gradient of its value", "[loss]") {
  const std::vector<std::uint8_t> mask{1, 0, 1, 1, 1};
  for (bool normalized : {false, true}) {
    Trace<double> trace = random_trace(5, 6, 2, {.token_mask = mask});
    const RouterEntropyOptions options{.coefficient = 0.3, .normalized = normalized};
    router_entropy(trace, options);
    const std::vector<double> gradient = copied(elements(trace.d_scores()));
    CHECK(gradient_error(elements(trace.scores()), gradient, [&] { return router_entropy(trace, options); }) <
          gradient_tolerance);
    CHECK(all_zero(trace.d_scores().row(1)));
    CHECK(all_zero(trace.d_scores().row(0).subspan(6)));
  }
}

TEST_CASE("Every entropy is 1 of an even token and 0 of a decided one, where it is normalized", "[loss]") {
  for (EntropyFamily family : {EntropyFamily::tsallis, EntropyFamily::renyi})
    for (double order : {0.5, 1.0, 1.1, 2.0}) {
      const RouterEntropyOptions options{.normalized = true, .entropy = {.family = family, .order = order}};
      Trace<double> even = empty_trace(2, 5);
      fill(even.scores(), 0.2);
      CHECK(near(router_entropy(even, options), 1));
      Trace<double> decided = empty_trace(1, 5);
      decided.scores()(0, 3) = 1;
      CHECK(near(router_entropy(decided, options), 0));
    }
}

TEST_CASE("Other entropies have their formula's value", "[loss]") {
  Trace<double> trace = known_trace();
  double squares = 0, shifted = 0;
  for (double p : trace.scores().row(0)) {
    squares += p * p;
    shifted += (p + 0.01) * (p + 0.01);
  }
  CHECK(near(router_entropy(trace, {.entropy = {.order = 2}}), 1 - squares));
  CHECK(near(router_entropy(trace, {.normalized = true, .entropy = {.order = 2}}), (1 - squares) / (1 - 1.0 / 4)));
  CHECK(near(router_entropy(trace, {.entropy = {.order = 2, .shift = 0.01}}), 1 - shifted));
  const Entropy renyi{.family = EntropyFamily::renyi, .order = 2, .shift = 0.01, .offset = 0.1};
  CHECK(near(router_entropy(trace, {.coefficient = 3, .entropy = renyi}), -3 * std::log(shifted + 0.1)));
}

TEST_CASE("Every entropy adds the gradient of its value", "[loss]") {
  const std::vector<std::uint8_t> mask{1, 0, 1, 1, 1};
  for (EntropyFamily family : {EntropyFamily::tsallis, EntropyFamily::renyi})
    for (double order : {0.5, 1.0, 1.1, 2.0})
      for (double shift : {0.0, 1e-3})
        for (bool normalized : {false, true}) {
          INFO("family " << int(family) << ", order " << order << ", shift " << shift << ", normalized " << normalized);
          const RouterEntropyOptions options{
              .coefficient = 0.3,
              .normalized = normalized,
              .entropy = {.family = family, .order = order, .shift = shift, .offset = shift}};
          Trace<double> trace = random_trace(5, 6, 2, {.token_mask = mask});
          router_entropy(trace, options);
          const std::vector<double> gradient = copied(elements(trace.d_scores()));
          CHECK(gradient_error(elements(trace.scores()), gradient, [&] { return router_entropy(trace, options); }) <
                gradient_tolerance);
          CHECK(all_zero(trace.d_scores().row(1)));
          CHECK(all_zero(trace.d_scores().row(0).subspan(6)));
        }
}

TEST_CASE("A shift lets scores of 0 count", "[loss]") {
  Trace<double> trace = empty_trace(1, 3);
  trace.scores()(0, 0) = 1;
  router_entropy(trace, {.entropy = {.order = 1.1, .shift = 1e-5}});
  CHECK(trace.d_scores()(0, 1) < 0);
  CHECK(std::isfinite(trace.d_scores()(0, 1)));
}

TEST_CASE("An entropy of order 0 or below is refused", "[loss]") {
  Trace<double> trace = known_trace();
  CHECK_THROWS_AS(router_entropy(trace, {.entropy = {.order = 0}}), Error);
  CHECK(all_zero(elements(trace.d_scores())));
}

TEST_CASE("Without a token that counts, or a second expert, the entropy is 0", "[loss]") {
  const std::vector<std::uint8_t> none(3, 0);
  Trace<double> empty = empty_trace(0, 3), masked = random_trace(3, 3, 0, {.token_mask = none});
  CHECK(router_entropy(empty) == 0);
  CHECK(router_entropy(masked) == 0);
  CHECK(all_zero(elements(masked.d_scores())));
  Trace<double> alone = empty_trace(1, 1);
  fill(alone.scores(), 1);
  CHECK(router_entropy(alone, {.normalized = true}) == 0);
}

TEST_CASE("The entropy is that of the tokens that count, and of the experts with a score", "[loss]") {
  for (bool normalized : {false, true})
    CHECK(error_of_what_is_left_out(
              [&](auto& trace) { return router_entropy(trace, {.coefficient = 0.3, .normalized = normalized}); }, 1) <
          value_tolerance);
}

TEST_CASE("The entropy adds to the gradients that are there", "[loss]") {
  CHECK(error_of_addition([](auto& trace) { return router_entropy(trace, {.coefficient = 0.3}); }, 1) <
        value_tolerance);
}
