// SPDX-License-Identifier: MIT
#include "mole/loss/router_z.hpp"

#include "loss_trace.hpp"
#include "support/catch.hpp"

namespace {

using namespace mole;
using namespace mole::test;

void set_row(View<double> view, Index row, std::initializer_list<double> values) {
  std::copy(values.begin(), values.end(), view.row(row).begin());
}

}  // namespace

TEST_CASE("Known logits have their known squared logsumexp", "[loss]") {
  Trace<double> trace = empty_trace(1, 4);
  set_row(trace.logits(), 0, {2, 1, 0, -1});
  CHECK(near(router_z(trace), 5.954525765, 1e-9));
  CHECK(near(trace.d_logits()(0, 0), 2 * 2.440189699 * 0.643914260, 1e-8));
  CHECK(near(router_z(trace, {.coefficient = 1e-3}), 5.954525765e-3, 1e-9));
}

TEST_CASE("The z loss adds the gradient of its value", "[loss]") {
  const std::vector<std::uint8_t> mask{1, 0, 1, 1, 1};
  Trace<double> trace = random_trace(5, 6, 2, {.token_mask = mask});
  const RouterZOptions options{.coefficient = 0.3};
  router_z(trace, options);
  const std::vector<double> gradient = copied(elements(trace.d_logits()));
  CHECK(gradient_error(elements(trace.logits()), gradient, [&] { return router_z(trace, options); }) <
        gradient_tolerance);
  CHECK(all_zero(elements(trace.d_scores())));
}

TEST_CASE("Logits of any size are safe", "[loss]") {
  Trace<double> trace = empty_trace(2, 3);
  set_row(trace.logits(), 0, {1e4, 0, -1e4});
  set_row(trace.logits(), 1, {-1e4, -1e4, -1e4});
  const double low = std::log(3) - 1e4;
  CHECK(near(router_z(trace), (1e8 + low * low) / 2));
  CHECK(near(trace.d_logits()(0, 0), 1e4));
  CHECK(trace.d_logits()(0, 2) == 0);
  CHECK(near(trace.d_logits()(1, 1), low / 3));
}

TEST_CASE("Forbidden experts take no part, and a token without any contributes nothing", "[loss]") {
  constexpr double never = -std::numeric_limits<double>::infinity();
  Trace<double> trace = empty_trace(2, 3);
  set_row(trace.logits(), 0, {2, never, 0});
  set_row(trace.logits(), 1, {never, never, never});
  const double log_sum = std::log(std::exp(2.0) + 1);
  CHECK(near(router_z(trace), log_sum * log_sum / 2));
  CHECK(trace.d_logits()(0, 1) == 0);
  CHECK(all_zero(trace.d_logits().row(1)));
}

TEST_CASE("Without a token that counts the z loss is 0", "[loss]") {
  const std::vector<std::uint8_t> none(3, 0);
  Trace<double> empty = empty_trace(0, 3), masked = random_trace(3, 3, 0, {.token_mask = none});
  CHECK(router_z(empty) == 0);
  CHECK(router_z(masked) == 0);
  CHECK(all_zero(elements(masked.d_logits())));
}

TEST_CASE("The z loss leaves extra columns out", "[loss]") {
  Trace<double> trace = random_trace(3, 4, 1);
  const double value = router_z(trace);
  for (Index n = 0; n < 3; ++n) trace.logits()(n, 4) = 30;
  CHECK(router_z(trace) == value);
  for (Index n = 0; n < 3; ++n) CHECK(trace.d_logits()(n, 4) == 0);
}

TEST_CASE("The z loss is that of the tokens that count, and of the experts with a logit", "[loss]") {
  CHECK(error_of_what_is_left_out([](auto& trace) { return router_z(trace, {.coefficient = 0.3}); }, 1) <
        value_tolerance);
}

TEST_CASE("The z loss adds to the gradients that are there", "[loss]") {
  CHECK(error_of_addition([](auto& trace) { return router_z(trace, {.coefficient = 0.3}); }, 1) < value_tolerance);
}
