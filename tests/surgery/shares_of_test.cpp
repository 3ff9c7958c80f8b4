// SPDX-License-Identifier: MIT
#include "mole/surgery/shares_of.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace mole::test;

TEST_CASE("Shares are counts over their sum, and equal if nobody was counted", "[surgery]") {
  CHECK(shares_of({1, 3}) == std::vector<double>{0.25, 0.75});
  CHECK(shares_of({0, 0}) == std::vector<double>{0.5, 0.5});
  CHECK(shares_of({7}) == std::vector<double>{1});
  CHECK(code_of([] { shares_of({}); }) == ErrorCode::option);
  CHECK(text_of([] { shares_of({2, -1}); }) == "shares_of: expected counts of at least 0, found -1");
  CHECK(code_of([] { shares_of({std::nan("")}); }) == ErrorCode::option);
}
