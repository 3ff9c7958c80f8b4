// SPDX-License-Identifier: MIT
#include "mole/loss/coefficient.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"

#include <limits>

using namespace mole;

TEST_CASE("A coefficient that float cannot compute with is refused by name", "[loss]") {
  const auto code = [](double c) { return test::code_of([&] { detail::require_coefficient("some_loss", c); }); };
  for (double coefficient : {0.0, 1e-30, -1e30, 0.01}) CHECK(code(coefficient) == std::nullopt);
  for (double coefficient : {1e-31, -1e31, std::numeric_limits<double>::quiet_NaN()})
    CHECK(code(coefficient) == ErrorCode::option);
  CHECK(test::text_of([] { detail::require_coefficient("some_loss", 1e-31); }) ==
        "some_loss: expected a coefficient of 0, or of size 1e-30 to 1e30, found 1e-31");
}
