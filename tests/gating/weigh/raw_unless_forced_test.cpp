// SPDX-License-Identifier: MIT
#include "mole/gating/weigh/raw_unless_forced.hpp"

#include "mole/gating/gate.hpp"
#include "mole/gating/score/identity.hpp"
#include "mole/gating/score/masked.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/testing/gating_laws.hpp"
#include "mole/testing/weigh_laws.hpp"
#include "support/catch.hpp"

using namespace mole;

TEST_CASE("RawUnlessForced gives an excluded expert gate 1 for the tokens that are forced to it, and to no other",
          "[gating]") {
  Matrix<double> logits(3, 3);  // cosines; expert 2 is for forced tokens alone
  logits(0, 0) = -0.5, logits(0, 1) = -0.25, logits(1, 0) = 0.75, logits(2, 1) = 0.5;
  const std::vector<int> forced{-1, 2, 0};
  const Gate gate{Masked{Identity{}, {1, 1, 0}}, TopK{1}, RawUnlessForced{}};
  auto trace = laws::routed(gate, logits, 3, {.forced = forced});
  using Choice = std::vector<std::pair<int, double>>;
  CHECK(laws::choices(trace) == std::vector<Choice>{{{1, -0.25}}, {{2, 1.0}}, {{0, 1.0}}});

  const CallSize size{.tokens = 3, .pairs = 3, .experts = 3, .columns = 3};
  laws::Harness harness(gate, size, trace.pass);
  std::ranges::fill(trace.d_gate(), 2.0);
  gate.backward(trace, harness.call());
  for (Index n = 0; n < 3; ++n)
    for (Index e = 0; e < 3; ++e) CHECK(trace.d_logits()(n, e) == (n == 0 && e == 1 ? 2 : 0));
}

TEST_CASE("RawUnlessForced keeps the laws of weighings", "[gating]") {
  CHECK(laws::broken_weigh_law(RawUnlessForced{}) == "");
  CHECK(laws::broken_weigh_law(RawUnlessForced{{.scale = 2}}) == "");
}
