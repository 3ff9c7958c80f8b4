// SPDX-License-Identifier: MIT
#include "mole/optim/bilevel_turns.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"

#include <string>

using namespace mole;

TEST_CASE("BilevelTurns begin with the lower problem, then alternate", "[optim]") {
  const auto turns_of = [](const BilevelTurns& turns) {
    turns.check();
    std::string turn;
    for (Index t = 0; t < 10; ++t) turn += turns(t) == Turn::lower ? 'l' : 'u';
    return turn;
  };
  CHECK(turns_of({}) == "lululululu");
  CHECK(turns_of({.warmup = 3}) == "llllululul");
  CHECK(turns_of({.lower = 3, .upper = 2}) == "llluullluu");
}

TEST_CASE("BilevelTurns refuse turns of nobody", "[optim]") {
  CHECK(test::code_of([] { BilevelTurns{.warmup = -1}.check(); }) == ErrorCode::option);
  CHECK(test::code_of([] { BilevelTurns{.lower = 0}.check(); }) == ErrorCode::option);
  CHECK(test::code_of([] { BilevelTurns{.upper = 0}.check(); }) == ErrorCode::option);
}
