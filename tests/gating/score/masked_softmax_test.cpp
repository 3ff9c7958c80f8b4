// SPDX-License-Identifier: MIT
#include "mole/gating/score/masked_softmax.hpp"

#include "mole/testing/score_laws.hpp"
#include "support/catch.hpp"
#include "support/selected.hpp"

using namespace mole;

TEST_CASE("MaskedSoftmax shares out among the allowed", "[gating]") {
  const std::vector<double> logits{5, 0, 9, 0};
  std::vector<double> scores(4, 7.0);
  MaskedSoftmax{{0, 1, 0, 1}}.forward(std::span<const double>(logits), std::span<double>(scores));
  CHECK(scores == std::vector<double>{0, 0.5, 0, 0.5});
  MaskedSoftmax{{0, 0, 0, 0}}.forward(std::span<const double>(logits), std::span<double>(scores));
  CHECK(scores == std::vector<double>(4));
  CHECK(support::refuses(MaskedSoftmax{{1, 1}}, 4));
}

TEST_CASE("MaskedSoftmax's gradient is its derivative, and 0 off the allowed", "[gating]") {
  CHECK(laws::broken_score_law(MaskedSoftmax{{1, 0, 1, 1, 0, 1}}, {.experts = 6}) == "");
  CHECK(laws::broken_score_law(MaskedSoftmax{{0, 0, 0}}, {.experts = 3}) == "");
}
