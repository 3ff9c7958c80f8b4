// SPDX-License-Identifier: MIT
#include "mole/loss/modality_divergence.hpp"

#include "core/error_code.hpp"
#include "loss_trace.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace mole::test;

namespace {
const std::vector<int> divergence_labels{0, 1, 1, 0, 2, 1, 0};
}  // namespace

TEST_CASE("Modalities of equal mean scores are worth 1, others less by their divergence", "[loss]") {
  Trace<double> trace = empty_trace(3, 2);
  fill(trace.scores(), 0.5);
  const std::vector<int> labels{0, 1, 0};
  CHECK(near(modality_divergence(trace, labels), 1));
  trace.scores()(0, 0) = trace.scores()(2, 0) = 0.9, trace.scores()(0, 1) = trace.scores()(2, 1) = 0.1;
  const double divergence = 0.9 * std::log(0.9 / 0.5) + 0.1 * std::log(0.1 / 0.5);
  CHECK(near(modality_divergence(trace, labels, {.coefficient = 2}), 2 * (1 - divergence), 1e-9));
  const double other_way = 0.5 * std::log(0.5 / 0.9) + 0.5 * std::log(0.5 / 0.1);
  CHECK(near(modality_divergence(trace, labels, {.from = 1, .to = 0}), 1 - other_way, 1e-9));
}

TEST_CASE("modality_divergence adds the gradient of its value, to the tokens of its two modalities", "[loss]") {
  const std::vector<std::uint8_t> mask{1, 0, 1, 1, 1, 1, 1};
  Trace<double> trace = random_trace(7, 5, 1, {.token_mask = mask});
  const ModalityDivergenceOptions options{.coefficient = 0.7, .epsilon = 0.01};
  modality_divergence(trace, divergence_labels, options);
  const std::vector<double> gradient = copied(elements(trace.d_scores()));
  CHECK(gradient_error(elements(trace.scores()), gradient,
                       [&] { return modality_divergence(trace, divergence_labels, options); }) < gradient_tolerance);
  CHECK(all_zero(trace.d_scores().row(1)));
  CHECK(all_zero(trace.d_scores().row(4)));
  CHECK_FALSE(all_zero(trace.d_scores().row(2)));
}

TEST_CASE("An expert that the other modality never wants has a finite divergence", "[loss]") {
  Trace<double> trace = empty_trace(2, 2);
  trace.scores()(0, 0) = trace.scores()(1, 1) = 1;
  const double value = modality_divergence(trace, std::vector<int>{0, 1});
  CHECK(near(value, 1 + std::log(1e-10), 1e-9));
  for (double d : elements(trace.d_scores())) CHECK(std::isfinite(d));
}

TEST_CASE("modality_divergence needs tokens of both modalities, and adds to what is there", "[loss]") {
  CHECK(error_of_addition([](auto& trace) { return modality_divergence(trace, divergence_labels); }) < value_tolerance);
  Trace<double> trace = random_trace(2, 3);
  CHECK(modality_divergence(trace, std::vector<int>{0, 0}) == 0);
  CHECK(modality_divergence(trace, std::vector<int>{2, 1}) == 0);
  CHECK(all_zero(elements(trace.d_scores())));
  trace.logits()(0, 1) = -std::numeric_limits<double>::infinity();
  trace.scores()(0, 1) = std::nan("");
  CHECK(std::isfinite(modality_divergence(trace, std::vector<int>{0, 1})));
  CHECK(trace.d_scores()(0, 1) == 0);
}

TEST_CASE("modality_divergence refuses one label twice and an epsilon of 0", "[loss]") {
  Trace<double> trace = random_trace(2, 3);
  const std::vector<int> labels{0, 1};
  CHECK(code_of([&] { modality_divergence(trace, labels, {.from = 1, .to = 1}); }) == ErrorCode::option);
  CHECK(code_of([&] { modality_divergence(trace, labels, {.epsilon = 0}); }) == ErrorCode::option);
  CHECK(code_of([&] { modality_divergence(trace, std::vector<int>{0}); }) == ErrorCode::shape);
}
