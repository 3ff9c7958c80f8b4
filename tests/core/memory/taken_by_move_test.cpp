// SPDX-License-Identifier: MIT
#include "mole/core/memory/taken_by_move.hpp"

#include "support/catch.hpp"

using mole::TakenByMove;

TEST_CASE("A value that was moved from is 0, one that was copied stays", "[core]") {
  TakenByMove<int> first = 3;
  const TakenByMove<int> copy = first;
  CHECK((first == 3 && copy == 3));
  TakenByMove<int> second = std::move(first);
  CHECK((first == 0 && second == 3));
  first = std::move(second);
  CHECK((first == 3 && second == 0));
  second = first;
  CHECK((first == 3 && second == 3));
  CHECK(TakenByMove<const int*>() == nullptr);
}
