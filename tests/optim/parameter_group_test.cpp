// SPDX-License-Identifier: MIT
#include "mole/optim/parameter_group.hpp"

#include "core/error_code.hpp"
#include "mole/core/matrix.hpp"
#include "mole/optim/adamw.hpp"
#include "mole/optim/sgd.hpp"
#include "mole/optim/sign_bias_balancer.hpp"
#include "support/catch.hpp"

#include <cmath>
#include <limits>
#include <vector>

using namespace mole;

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

TEST_CASE("A group that applies to nothing is refused by reserve(), so in every resumed run", "[optim]") {
  Matrix<float> p(2, 3), d_p(2, 3);
  const auto walk = [&](auto&& f) { f("router.weight", p.view(), d_p.view()); };
  AdamW<float> misspelled({.groups = {{.contains = "ruoter", .learning_rate_scale = 0}}});
  CHECK(test::code_of([&] { misspelled.reserve(walk); }) == ErrorCode::option);
  CHECK(test::code_of([&] { misspelled.step(walk); }) == ErrorCode::option);
  AdamW<float> right({.groups = {{.contains = "router", .learning_rate_scale = 0}}});
  CHECK_NOTHROW(right.reserve(walk));
  CHECK_NOTHROW(right.step(walk));
}

TEST_CASE("Rates and decays that are no ordinary numbers of float are refused, wherever they come in", "[optim]") {
  for (double wrong : {-1.0, 1e39, 1e-39, std::numeric_limits<double>::infinity(), std::nan("")}) {
    CAPTURE(wrong);
    const auto code = [](auto&& call) { return test::code_of(call); };
    CHECK(code([&] { AdamW<float>({.learning_rate = wrong}); }) == ErrorCode::option);
    CHECK(code([&] { AdamW<float>({.weight_decay = wrong}); }) == ErrorCode::option);
    CHECK(code([&] { Sgd<float>({.learning_rate = wrong}); }) == ErrorCode::option);
    CHECK(code([&] { Sgd<float>({.weight_decay = wrong}); }) == ErrorCode::option);
    const ParameterGroup scaled{.contains = "", .learning_rate_scale = wrong};
    const ParameterGroup decayed{.contains = "", .weight_decay = wrong};
    for (const ParameterGroup& group : {scaled, decayed}) {
      CHECK(code([&] { AdamW<float>({.groups = {group}}); }) == ErrorCode::option);
      CHECK(code([&] { Sgd<float>({.groups = {group}}); }) == ErrorCode::option);
    }
    AdamW<float> adamw;
    Sgd<float> sgd;
    CHECK(code([&] { adamw.set_learning_rate(wrong); }) == ErrorCode::option);
    CHECK(code([&] { sgd.set_learning_rate(wrong); }) == ErrorCode::option);
    CHECK(adamw.learning_rate() == 1e-3);
    CHECK(code([&] { SignBiasBalancer({.experts = 2, .rate = wrong}); }) == ErrorCode::option);
    SignBiasBalancer balancer({.experts = 2});
    CHECK(code([&] { balancer.set_rate(wrong); }) == ErrorCode::option);
  }
  AdamW<float> adamw;
  CHECK(test::code_of([&] { adamw.set_steps(-1); }) == ErrorCode::option);
  CHECK_NOTHROW(adamw.set_learning_rate(0));
}
