// SPDX-License-Identifier: MIT
#include "mole/gating/renormalized.hpp"

#include "support/catch.hpp"
#include "support/score_checks.hpp"

using mole::Renormalized;

namespace {
std::vector<double> weights(const std::vector<double>& scores, const std::vector<int>& chosen) {
  std::vector<double> result(chosen.size());
  Renormalized{}.forward(std::span<const double>(scores), std::span<const int>(chosen), std::span<double>(result));
  return result;
}
}  // namespace

TEST_CASE("Renormalized's weights sum to one over the chosen", "[gating]") {
  const auto w = weights({0.5, 0.2, 0.3}, {0, 2});
  CHECK(std::abs(w[0] - 0.625) < 1e-15);
  CHECK(std::abs(w[1] - 0.375) < 1e-15);
}

TEST_CASE("Renormalized gives zero, not NaN, where the chosen scores are all zero", "[gating]") {
  CHECK(weights({0, 0, 1}, {0, 1}) == std::vector<double>{0, 0});
  CHECK(weights({0, 0, 1}, {}).empty());
}

TEST_CASE("Renormalized of one expert is exactly one", "[gating]") {
  CHECK(weights({0.3, 0.1}, {1}) == std::vector<double>{1});
}

TEST_CASE("Renormalized's gradient is its derivative", "[gating]") {
  CHECK(support::weigh_gradient_error(Renormalized{}, 6, {4, 0, 1}) < 1e-7);
  CHECK(support::weigh_gradient_error(Renormalized{}, 4, {2}) < 1e-8);
}
