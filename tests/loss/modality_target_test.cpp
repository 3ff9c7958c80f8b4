// SPDX-License-Identifier: MIT
#include "mole/loss/modality_target.hpp"

#include "core/error_code.hpp"
#include "loss_trace.hpp"
#include "mole/core/matrix.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace mole::test;

namespace {
const std::vector<int> target_labels{0, 1, 1, 0, 2, 1, 0};
/// Of 3 modalities over 5 experts; the last one wants nobody.
Matrix<double> wishes() {
  Matrix<double> wanted(3, 5);
  wanted(0, 0) = wanted(0, 1) = wanted(1, 4) = 1;
  return wanted;
}
}  // namespace

TEST_CASE("Scores at the target of their modality cost nothing and have no gradient", "[loss]") {
  Trace<double> trace = empty_trace(2, 5);
  trace.scores()(0, 0) = trace.scores()(0, 1) = 0.5;
  trace.scores()(1, 4) = 1;
  const std::vector<int> labels{0, 1};
  CHECK(modality_target(trace, labels, wishes()) == 0);
  CHECK(all_zero(elements(trace.d_scores())));
  CHECK(modality_target(trace, labels, wishes(), {.normalized = false}) == 0.5);  // token 0 is 0.5 off, twice, of 2
  trace.scores()(1, 4) = 0, trace.scores()(1, 2) = 1;
  CHECK(modality_target(trace, labels, wishes(), {.coefficient = 3}) == 3);
  const std::vector<int> nobody{2, 2};
  CHECK(modality_target(trace, nobody, wishes()) == 1);
}

TEST_CASE("modality_target adds the gradient of its value", "[loss]") {
  const std::vector<std::uint8_t> mask{1, 0, 1, 1, 1, 1, 1};
  for (bool normalized : {false, true}) {
    Trace<double> trace = random_trace(7, 5, 1, {.token_mask = mask});
    const ModalityTargetOptions options{.coefficient = 0.7, .normalized = normalized};
    modality_target(trace, target_labels, wishes(), options);
    const std::vector<double> gradient = copied(elements(trace.d_scores()));
    CHECK(gradient_error(elements(trace.scores()), gradient, [&] {
            return modality_target(trace, target_labels, wishes(), options);
          }) < gradient_tolerance);
    CHECK(all_zero(trace.d_scores().row(1)));
  }
}

TEST_CASE("modality_target leaves out what does not count, whatever its label, and adds to what is there", "[loss]") {
  CHECK(error_of_addition([](auto& trace) { return modality_target(trace, target_labels, wishes()); }) <
        value_tolerance);
  Trace<double> trace = empty_trace(1, 5);
  trace.logits()(0, 3) = -std::numeric_limits<double>::infinity();
  trace.scores()(0, 3) = std::nan("");
  CHECK(modality_target(trace, std::vector<int>{1}, wishes()) == 1);
  CHECK(trace.d_scores()(0, 3) == 0);
  const std::vector<std::uint8_t> none(2, 0);
  Trace<double> masked = random_trace(2, 5, 0, {.token_mask = none});
  CHECK(modality_target(masked, std::vector<int>{9, -9}, wishes()) == 0);
}

TEST_CASE("modality_target refuses labels and sizes that do not fit, before it adds anything", "[loss]") {
  Trace<double> trace = random_trace(2, 5);
  CHECK(code_of([&] { modality_target(trace, std::vector<int>{0}, wishes()); }) == ErrorCode::shape);
  CHECK(code_of([&] { modality_target(trace, std::vector<int>{0, 3}, wishes()); }) == ErrorCode::option);
  CHECK(code_of([&] { modality_target(trace, std::vector<int>{0, -1}, wishes()); }) == ErrorCode::option);
  CHECK(code_of([&] { modality_target(trace, std::vector<int>{0, 1}, Matrix<double>(3, 4)); }) == ErrorCode::shape);
  for (const double number : {-0.5, std::nan(""), HUGE_VAL}) {
    Matrix<double> wrong = wishes();
    wrong(1, 2) = number;
    CHECK(code_of([&] { modality_target(trace, std::vector<int>{0, 1}, wrong); }) == ErrorCode::option);
  }
  CHECK(all_zero(elements(trace.d_scores())));
}
