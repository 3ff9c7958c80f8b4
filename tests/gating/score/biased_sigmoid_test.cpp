// SPDX-License-Identifier: MIT
#include "mole/gating/score/biased_sigmoid.hpp"
#include "mole/gating/weigh/renormalized.hpp"

#include "support/catch.hpp"
#include "support/score_checks.hpp"
#include "support/selected.hpp"

using namespace mole;

TEST_CASE("BiasedSigmoid adds a bias that has no part in its gradient", "[gating]") {
  BiasedSigmoid<double> score(4);
  score.bias = {0.5, 0, -1, 0};
  std::vector<double> scores(4);
  score.forward(std::span<const double>(std::vector<double>{2, 1, 0, -1}), std::span<double>(scores));
  const double expected[] = {1.380797078, 0.731058579, -0.5, 0.268941421};
  for (std::size_t e = 0; e < 4; ++e) CHECK(std::abs(scores[e] - expected[e]) < 1e-9);
  CHECK(support::score_gradient_error(score, 4) < 1e-8);
  CHECK(support::refuses(score, 5));
}
