// SPDX-License-Identifier: MIT
#include "mole/optim/parameter_group.hpp"

#include "core/error_code.hpp"
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

TEST_CASE("Every group applies to some tensor, the first or another, or is refused", "[optim]") {
  const auto walk = [](auto&& f) {
    for (std::string_view name : {"router.weight", "experts.lora_A", "base.weight"}) f(name);
  };
  const auto code = [&](std::string contains) {
    const std::vector<mole::ParameterGroup> groups{{.contains = ""}, {.contains = std::move(contains)}};
    return mole::test::code_of([&] { mole::check_groups(groups, walk); });
  };
  for (const char* part : {"router", "lora_A", "base", "weight"}) CHECK(code(part) == std::nullopt);
  CHECK(code("lora_C") == mole::ErrorCode::option);
}
