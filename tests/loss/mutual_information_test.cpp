// SPDX-License-Identifier: MIT
#include "mole/loss/mutual_information.hpp"

#include "core/error_code.hpp"
#include "loss_trace.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace mole::test;

namespace {
const std::vector<int> task_labels{0, 1, 1, 0, 2, 1, 0};
}  // namespace

TEST_CASE("Tasks that choose alike tell nothing; tasks with experts of their own tell all", "[loss]") {
  Trace<double> trace = empty_trace(4, 2);
  const std::vector<int> labels{0, 1, 0, 1};
  fill(trace.scores(), 0.5);
  CHECK(std::abs(mutual_information(trace, labels, 2)) < 1e-15);
  for (Index n = 0; n < 4; ++n) trace.scores()(n, n % 2) = 1, trace.scores()(n, 1 - n % 2) = 0;
  CHECK(near(mutual_information(trace, labels, 2, 3), -3 * std::log(2)));
  CHECK(near(mutual_information(trace, labels, 7), -std::log(2)));  // tasks without tokens
}

TEST_CASE("mutual_information adds the gradient of its value", "[loss]") {
  const std::vector<std::uint8_t> mask{1, 0, 1, 1, 1, 1, 1};
  Trace<double> trace = random_trace(7, 5, 1, {.token_mask = mask});
  mutual_information(trace, task_labels, 3, 0.7);
  const std::vector<double> gradient = copied(elements(trace.d_scores()));
  CHECK(gradient_error(elements(trace.scores()), gradient,
                       [&] { return mutual_information(trace, task_labels, 3, 0.7); }) < gradient_tolerance);
  CHECK(all_zero(trace.d_scores().row(1)));
  for (Index n = 0; n < 7; ++n) CHECK(trace.d_scores()(n, 5) == 0);
}

TEST_CASE("Scores of 0 have no step, excluded experts no part, and gradients that are there are added to", "[loss]") {
  CHECK(error_of_addition([](auto& trace) { return mutual_information(trace, task_labels, 3); }) < value_tolerance);
  Trace<double> trace = random_trace(2, 3);
  trace.logits()(0, 1) = -std::numeric_limits<double>::infinity();
  trace.scores()(0, 1) = std::nan("");
  trace.scores()(1, 2) = 0;
  CHECK(std::isfinite(mutual_information(trace, std::vector<int>{0, 1}, 2)));
  CHECK(trace.d_scores()(0, 1) == 0);
  CHECK(trace.d_scores()(1, 2) == 0);
  Trace<double> empty = empty_trace(0, 3);
  CHECK(mutual_information(empty, {}, 2) == 0);
}

TEST_CASE("mutual_information refuses labels out of range, before it adds anything", "[loss]") {
  Trace<double> trace = random_trace(2, 3);
  CHECK(code_of([&] { mutual_information(trace, std::vector<int>{0, 2}, 2); }) == ErrorCode::option);
  CHECK(code_of([&] { mutual_information(trace, std::vector<int>{0, -1}, 2); }) == ErrorCode::option);
  CHECK(code_of([&] { mutual_information(trace, std::vector<int>{0, 0}, 0); }) == ErrorCode::option);
  CHECK(code_of([&] { mutual_information(trace, std::vector<int>{0}, 2); }) == ErrorCode::shape);
  CHECK(all_zero(elements(trace.d_scores())));
}
