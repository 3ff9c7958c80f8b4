// SPDX-License-Identifier: MIT
#include "mole/loss/localized_balance.hpp"

#include "loss_trace.hpp"
#include "support/catch.hpp"

#include <array>

namespace {

using namespace mole;
using namespace mole::test;

}  // namespace

TEST_CASE("A hand-computed case of two sequences", "[loss]") {
  // Q of task 1: 1.5 * 1 and 0.5 * 1; of task 0: 0.5 * 1 and 1.5 * 3.
  // Mean 1.75, variance (0.0625 + 2 * 1.5625 + 7.5625) / 3
  const std::vector<Index> begin{0, 1};
  const std::array tasks{1, 0};
  Trace<double> trace = empty_trace(3, 2, 0, {.sequence_begin = begin});
  fill(trace.scores(), 1);
  trace.scores()(1, 0) = trace.scores()(2, 0) = 0.5;
  trace.scores()(1, 1) = 2;
  const double expected = (0.0625 + 2 * 1.5625 + 7.5625) / 3 / (1.75 * 1.75 + 1e-10);
  CHECK(near(localized_balance(trace, {.task_types = tasks, .blc_alpha = 0.5}), expected));
  CHECK(near(localized_balance(trace, {.task_types = tasks, .blc_alpha = 0.5, .blc_weight = 0.2}), 0.2 * expected));
}

TEST_CASE("Scores in proportion to 1 / c have no variation", "[loss]") {
  const std::array tasks{1};
  Trace<double> trace = empty_trace(2, 4);
  for (Index n = 0; n < 2; ++n)
    for (Index e = 0; e < 4; ++e) trace.scores()(n, e) = e < 2 ? 1 / 1.25 : 1 / 0.75;
  CHECK(near(localized_balance(trace, {.task_types = tasks, .blc_alpha = 0.25}), 0));
}

TEST_CASE("The constraint adds the gradient of its value", "[loss]") {
  const std::vector<std::uint8_t> mask{1, 1, 0, 1, 1, 1, 0, 1};
  const std::vector<Index> begin{0, 3, 5};
  const std::array tasks{0, 1, 2};  // 2 belongs to no half
  Trace<double> trace = random_trace(8, 5, 1, {.token_mask = mask, .sequence_begin = begin});
  const LocalizedBalanceOptions options{.task_types = tasks, .blc_alpha = 0.3, .blc_weight = 0.7};
  localized_balance(trace, options);
  const std::vector<double> gradient = copied(elements(trace.d_scores()));
  CHECK(gradient_error(elements(trace.scores()), gradient, [&] { return localized_balance(trace, options); }) <
        gradient_tolerance);
  CHECK(all_zero(trace.d_scores().row(2)));
  for (Index n = 0; n < 8; ++n) CHECK(trace.d_scores()(n, 5) == 0);
}

TEST_CASE("Nothing that counts gives 0; task types must match the sequences", "[loss]") {
  const std::vector<std::uint8_t> none(3, 0);
  const std::array one{1};
  const std::array two{1, 0};
  Trace<double> empty = empty_trace(0, 3), masked = random_trace(3, 3, 0, {.token_mask = none});
  CHECK(localized_balance(empty, {.task_types = one}) == 0);
  CHECK(localized_balance(masked, {.task_types = one}) == 0);
  CHECK(all_zero(elements(masked.d_scores())));
  CHECK_THROWS_AS(localized_balance(masked, {.task_types = two}), Error);
}

TEST_CASE("The constraint is that of the tokens that count, and of the experts with a score", "[loss]") {
  const std::array tasks{1};
  CHECK(error_of_what_is_left_out(
            [&](auto& trace) {
              return localized_balance(trace, {.task_types = tasks, .blc_alpha = 0.3, .blc_weight = 0.7});
            },
            1) < value_tolerance);
}

TEST_CASE("The constraint adds to the gradients that are there", "[loss]") {
  const std::array tasks{1};
  CHECK(error_of_addition(
            [&](auto& trace) { return localized_balance(trace, {.task_types = tasks, .blc_alpha = 0.3}); }, 1) <
        value_tolerance);
}

TEST_CASE("The middle one of an odd number of experts belongs to the second half", "[loss]") {
  const std::array first{1}, second{0};
  Trace<double> trace = empty_trace(2, 3);
  for (Index n = 0; n < 2; ++n)
    for (Index e = 0; e < 3; ++e) trace.scores()(n, e) = e < 1 ? 1 / 1.25 : 1 / 0.75;
  CHECK(near(localized_balance(trace, {.task_types = first, .blc_alpha = 0.25}), 0));
  for (Index n = 0; n < 2; ++n)
    for (Index e = 0; e < 3; ++e) trace.scores()(n, e) = e < 1 ? 1 / 0.75 : 1 / 1.25;
  CHECK(near(localized_balance(trace, {.task_types = second, .blc_alpha = 0.25}), 0));
}
