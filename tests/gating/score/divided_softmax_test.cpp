// SPDX-License-Identifier: MIT
#include "mole/gating/score/divided_softmax.hpp"

#include "support/catch.hpp"
#include "support/score_checks.hpp"
#include "support/selected.hpp"

using namespace mole;

TEST_CASE("DividedSoftmax divides probabilities, not logits", "[gating]") {
  const std::vector<double> logits{2, 1, 0, -1};
  std::vector<double> scores(4);
  DividedSoftmax{2}.forward(std::span<const double>(logits), std::span<double>(scores));
  const double expected[] = {0.643914 / 2, 0.236883 / 2, 0.087144 / 2, 0.032059 / 2};
  for (std::size_t e = 0; e < 4; ++e) CHECK(std::abs(scores[e] - expected[e]) < 1e-6);
  CHECK(support::score_gradient_error(DividedSoftmax{0.7}, 6) < 1e-8);
  CHECK(support::refuses(DividedSoftmax{0}, 4));
}
