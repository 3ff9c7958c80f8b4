// SPDX-License-Identifier: MIT
#include "mole/optim/parameter_group.hpp"

#include "support/catch.hpp"

#include <vector>

TEST_CASE("The first group that occurs in a name applies", "[optim]") {
  const std::vector<mole::ParameterGroup> groups{{.contains = "lora_B"}, {.contains = "router"}, {.contains = "lora"}};
  CHECK(mole::group_of(groups, "experts.lora_B") == &groups[0]);
  CHECK(mole::group_of(groups, "experts.lora_A") == &groups[2]);
  CHECK(mole::group_of(groups, "router.weight") == &groups[1]);
  CHECK(mole::group_of(groups, "base.weight") == nullptr);
  CHECK(mole::group_of({}, "base.weight") == nullptr);
}

TEST_CASE("An empty text occurs in every name", "[optim]") {
  const std::vector<mole::ParameterGroup> groups{{.contains = "", .learning_rate_scale = 2}};
  CHECK(mole::group_of(groups, "anything") == &groups[0]);
}
