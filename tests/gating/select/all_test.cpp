// SPDX-License-Identifier: MIT
#include "mole/gating/select/all.hpp"

#include "mole/testing/select_laws.hpp"
#include "support/catch.hpp"

#include <vector>

TEST_CASE("All chooses every expert in the order of their indices", "[gating]") {
  const std::vector<float> scores{0.1f, 0.9f, 0.5f};
  std::vector<int> chosen(3, -1);
  CHECK(mole::All{}.max_chosen(3) == 3);
  CHECK(mole::All{}.select(std::span<const float>(scores), 3, std::span<int>(chosen)) == 3);
  CHECK(chosen == std::vector<int>{0, 1, 2});
}

TEMPLATE_TEST_CASE("All keeps the laws of selections but their order", "[gating]", float, double) {
  const mole::Index experts = GENERATE(1, 2, 7, 40);
  CHECK(mole::laws::broken_select_law<TestType>(mole::All{}, experts, {.best_first = false}) == "");
}
