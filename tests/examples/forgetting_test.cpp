// SPDX-License-Identifier: MIT

// What the program `continual` reads off its matrix of bits per byte.

#include "continual/forgetting.hpp"

#include <cmath>

#include "support/catch.hpp"

namespace {

/// Base's own text, then two tasks.
const continual::BitsMatrix bits{{{2, 4.5, 4}, {2.25, 3, 3.5}, {2.5, 3.75, 2.75}}};

bool near(double a, double b) {
  return std::abs(a - b) < 1e-12;
}

}  // namespace

TEST_CASE("what is forgotten is counted from the best that a domain ever had", "[continual]") {
  CHECK(bits.tasks() == 2);
  CHECK(near(bits.change(0, 1), 0));
  CHECK(near(bits.change(1, 1), 0));
  CHECK(near(bits.change(2, 1), 0.75));
  CHECK(near(bits.change(2, 0), 0.5));
  CHECK(near(bits.best(2, 2), 2.75));
}

TEST_CASE("the summary is of tasks, and the base's own text is apart", "[continual]") {
  const continual::Summary s = continual::summary_of(bits);
  CHECK(near(s.learned, (3 + 2.75) / 2));
  CHECK(near(s.last, (3.75 + 2.75) / 2));
  CHECK(near(s.forgotten, 0.75));  // of the first task alone: the last one cannot have been forgotten yet
  CHECK(near(s.transfer, 3.5 - 4));
  CHECK(near(s.base_text, 0.5));
}
