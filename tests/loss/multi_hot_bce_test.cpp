// SPDX-License-Identifier: MIT
#include "mole/loss/multi_hot_bce.hpp"

#include "loss_trace.hpp"
#include "mole/core/matrix.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

namespace {

using namespace mole;
using namespace mole::test;

Matrix<double> multi_hot(Index tokens, Index experts) {
  Matrix<double> targets(tokens, experts);
  for (Index n = 0; n < tokens; ++n)
    for (Index e = 0; e < experts; ++e) targets(n, e) = (n + 2 * e) % 3 == 0;
  return targets;
}

}  // namespace

TEST_CASE("Logits of 0 cost log 2 each, and have half a share of gradient", "[loss]") {
  Trace<double> trace = empty_trace(2, 4);
  const Matrix<double> targets = multi_hot(2, 4);
  CHECK(near(multi_hot_bce(trace, targets.view()), std::log(2)));
  for (Index n = 0; n < 2; ++n)
    for (Index e = 0; e < 4; ++e) CHECK(trace.d_logits()(n, e) == (targets(n, e) == 1 ? -0.5 : 0.5) / 8);
}

TEST_CASE("The loss of right experts is exact for large logits", "[loss]") {
  Trace<double> trace = empty_trace(1, 4);
  Matrix<double> targets(1, 4);
  targets(0, 0) = targets(0, 1) = 1;
  const double logits[] = {1e4, -1e4, -1e4, 1e4};  // right, wrong, right, wrong
  std::copy_n(logits, 4, trace.logits().row_data(0));
  CHECK(multi_hot_bce(trace, targets.view()) == 2e4 / 4);
  CHECK(std::vector<double>(trace.d_logits().row(0).begin(), trace.d_logits().row(0).end()) ==
        std::vector<double>{0, -0.25, 0, 0.25});
}

TEST_CASE("The loss of right experts adds the gradient of its value, of tokens that count", "[loss]") {
  const std::vector<std::uint8_t> mask{1, 0, 1, 1, 1};
  Trace<double> trace = random_trace(5, 4, 0, {.token_mask = mask});
  Matrix<double> targets = multi_hot(5, 4);
  targets(0, 1) = 0.25;
  targets(1, 0) = 7;  // of a token that does not count
  multi_hot_bce(trace, targets.view(), {.coefficient = 0.3});
  const std::vector<double> gradient = copied(elements(trace.d_logits()));
  CHECK(gradient_error(elements(trace.logits()), gradient, [&] {
          return multi_hot_bce(trace, targets.view(), {.coefficient = 0.3});
        }) < gradient_tolerance);
  CHECK(all_zero(trace.d_logits().row(1)));
}

TEST_CASE("An excluded expert takes no part in the loss of right experts", "[loss]") {
  Trace<double> trace = empty_trace(1, 3);
  trace.logits()(0, 0) = 1, trace.logits()(0, 1) = -std::numeric_limits<double>::infinity();
  Matrix<double> targets(1, 3);
  targets(0, 1) = 1;
  CHECK(near(multi_hot_bce(trace, targets.view()), (std::log1p(std::exp(1)) + std::log(2)) / 2));
  CHECK(trace.d_logits()(0, 1) == 0);
  Trace<double> nobody = empty_trace(0, 3);
  CHECK(multi_hot_bce(nobody, Matrix<double>(0, 3)) == 0);
}

TEST_CASE("The loss of right experts refuses targets that do not fit", "[loss]") {
  Trace<double> trace = empty_trace(2, 3);
  CHECK_THROWS_AS(multi_hot_bce(trace, Matrix<double>(2, 4)), Error);
  CHECK_THROWS_AS(multi_hot_bce(trace, Matrix<double>(3, 3)), Error);
  Matrix<double> targets(2, 3);
  targets(1, 2) = 1.5;
  CHECK_THROWS_AS(multi_hot_bce(trace, targets.view()), Error);
  CHECK(all_zero(elements(trace.d_logits())));
}
