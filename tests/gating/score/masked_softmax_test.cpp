// SPDX-License-Identifier: MIT
#include "mole/gating/score/masked_softmax.hpp"

#include "support/catch.hpp"
#include "support/score_checks.hpp"
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
  CHECK(support::score_gradient_error(MaskedSoftmax{{1, 0, 1, 1, 0, 1}}, 6) < 1e-8);
  CHECK(support::score_gradient_error(MaskedSoftmax{{0, 0, 0}}, 3) < 1e-8);
}
