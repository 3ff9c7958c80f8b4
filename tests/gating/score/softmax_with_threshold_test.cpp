// SPDX-License-Identifier: MIT
#include "mole/gating/score/softmax_with_threshold.hpp"

#include "mole/testing/score_laws.hpp"
#include "support/catch.hpp"
#include "support/selected.hpp"

using namespace mole;

TEST_CASE("SoftmaxWithThreshold never asks for more than somebody has", "[gating]") {
  const std::vector<double> logits{0.5, -1, 0.25, 40};
  std::vector<double> scores(4);
  SoftmaxWithThreshold{}.forward(std::span<const double>(logits), std::span<double>(scores));
  CHECK(std::abs(scores[0] + scores[1] + scores[2] - 1) < 1e-15);
  CHECK(std::abs(scores[3] - 1.0 / 3) < 1e-15);
  CHECK(*std::max_element(scores.begin(), scores.begin() + 3) >= scores[3]);
  SoftmaxWithThreshold{0.5}.forward(std::span<const double>(std::vector<double>{1, 1, 0}), std::span(scores).first(3));
  CHECK(scores[2] == 0.25);
  CHECK(support::refuses(SoftmaxWithThreshold{1.5}, 4));
  CHECK(support::refuses(SoftmaxWithThreshold{-0.5}, 4));
}

TEST_CASE("SoftmaxWithThreshold's gradient is its derivative", "[gating]") {
  CHECK(laws::broken_score_law(SoftmaxWithThreshold{}, {.experts = 6}) == "");
  CHECK(laws::broken_score_law(SoftmaxWithThreshold{0.4}, {.experts = 2}) == "");
}
