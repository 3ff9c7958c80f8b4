// SPDX-License-Identifier: MIT
#include "mole/loss/multi_hot_cross_entropy.hpp"

#include "core/error_code.hpp"
#include "loss_trace.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace mole::test;

namespace {
/// Which experts are right: those of an even sum of token and expert.
std::vector<std::uint8_t> even_ones(Index tokens, Index experts) {
  std::vector<std::uint8_t> right;
  for (Index n = 0; n < tokens; ++n)
    for (Index e = 0; e < experts; ++e) right.push_back((n + e) % 2 == 0);
  return right;
}
}  // namespace

TEST_CASE("A logit of 0 costs log 2 and has a gradient of -0.5 or 0.5 of its share", "[loss]") {
  Trace<double> trace = empty_trace(2, 3);
  const std::vector<std::uint8_t> right = even_ones(2, 3);
  CHECK(near(multi_hot_cross_entropy(trace, View<const std::uint8_t>(right, 2, 3)), std::log(2)));
  for (Index n = 0; n < 2; ++n)
    for (Index e = 0; e < 3; ++e) CHECK(near(trace.d_logits()(n, e), ((n + e) % 2 == 0 ? -0.5 : 0.5) / 6));
}

TEST_CASE("multi_hot_cross_entropy adds the gradient of its value, and stays finite at logits of 1e4", "[loss]") {
  const std::vector<std::uint8_t> mask{1, 0, 1, 1}, right = even_ones(4, 3);
  const View<const std::uint8_t> flags(right, 4, 3);
  Trace<double> trace = random_trace(4, 3, 0, {.token_mask = mask});
  multi_hot_cross_entropy(trace, flags, 0.7);
  const std::vector<double> gradient = copied(elements(trace.d_logits()));
  CHECK(gradient_error(elements(trace.logits()), gradient, [&] { return multi_hot_cross_entropy(trace, flags, 0.7); }) <
        gradient_tolerance);
  CHECK(all_zero(trace.d_logits().row(1)));
  trace.logits()(0, 0) = -1e4, trace.logits()(0, 1) = 1e4;  // both wrong
  fill(trace.d_logits(), 0);
  CHECK(multi_hot_cross_entropy(trace, flags) > 2e4 / 9 - 1);
  CHECK(near(trace.d_logits()(0, 0), -1.0 / 9));
  CHECK(near(trace.d_logits()(0, 1), 1.0 / 9));
}

TEST_CASE("Excluded experts count neither in the value nor in the mean", "[loss]") {
  Trace<double> trace = empty_trace(1, 3), two = empty_trace(1, 2);
  const std::vector<std::uint8_t> right{1, 0, 1};
  trace.logits()(0, 0) = two.logits()(0, 0) = 0.3, trace.logits()(0, 1) = two.logits()(0, 1) = -0.8;
  trace.logits()(0, 2) = -std::numeric_limits<double>::infinity();
  CHECK(multi_hot_cross_entropy(trace, View<const std::uint8_t>(right, 1, 3)) ==
        multi_hot_cross_entropy(two, View<const std::uint8_t>(right, 1, 2)));
  CHECK(trace.d_logits()(0, 0) == two.d_logits()(0, 0));
  CHECK(trace.d_logits()(0, 2) == 0);
}

TEST_CASE("multi_hot_cross_entropy adds to gradients that are there; no token is worth 0", "[loss]") {
  const std::vector<std::uint8_t> right = even_ones(7, 5);
  CHECK(error_of_addition([&](auto& trace) {
          return multi_hot_cross_entropy(trace, View<const std::uint8_t>(right, 7, 5));
        }) < value_tolerance);
  Trace<double> empty = empty_trace(0, 3);
  CHECK(multi_hot_cross_entropy(empty, View<const std::uint8_t>(right, 0, 3)) == 0);
  Trace<double> trace = empty_trace(2, 3);
  CHECK(code_of([&] { multi_hot_cross_entropy(trace, View<const std::uint8_t>(right, 3, 2)); }) == ErrorCode::shape);
  CHECK(code_of([&] { multi_hot_cross_entropy(trace, View<const std::uint8_t>(right, 2, 3), 1e31); }) ==
        ErrorCode::option);
}
