// SPDX-License-Identifier: MIT
#include "mole/io/read_report.hpp"

#include "support/catch.hpp"

TEST_CASE("A report counts what was used and names the rest, up to five", "[io]") {
  mole::ReadReport report;
  CHECK(report.text() == "0 used");
  report.used = {"a", "b"};
  report.refused = {"r"};
  report.unused = {"1", "2", "3", "4", "5", "6"};
  CHECK(report.text() == "2 used; 6 unused: 1, 2, 3, 4, 5, ...; 1 refused: r");
}
