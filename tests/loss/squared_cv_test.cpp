// SPDX-License-Identifier: MIT
#include "mole/loss/squared_cv.hpp"

#include "loss_trace.hpp"
#include "support/catch.hpp"

namespace {

using namespace mole;
using namespace mole::test;

SquaredCv of(const std::vector<double>& numbers, bool unbiased, double epsilon = 0) {
  return SquaredCv::of(Index(numbers.size()), unbiased, epsilon, [&](Index i) { return numbers[std::size_t(i)]; });
}

}  // namespace

TEST_CASE("(3, 1, 0, 0) varies by 2 unbiased and by 1.5 biased", "[loss]") {
  CHECK(of({3, 1, 0, 0}, true).value() == 2);
  CHECK(of({3, 1, 0, 0}, false).value() == 1.5);
  CHECK(of({300, 100, 0, 0}, true).value() == 2);  // whatever the unit
  CHECK(of({3, 1, 0, 0}, true, 1).value() == 1);
}

TEST_CASE("The derivative is that of the value", "[loss]") {
  std::vector<double> numbers{0.3, 1.7, -0.2, 0.9, 0.4};
  for (bool unbiased : {false, true}) {
    const SquaredCv cv = of(numbers, unbiased, 0.01);
    std::vector<double> gradient;
    for (double number : numbers) gradient.push_back(cv.derivative(number));
    CHECK(gradient_error(numbers, gradient, [&] { return of(numbers, unbiased, 0.01).value(); }) < gradient_tolerance);
  }
}

TEST_CASE("Less than two numbers, and nothing but zeros, do not vary", "[loss]") {
  for (const std::vector<double>& numbers : {std::vector<double>{}, {5}, {0, 0, 0}}) {
    CHECK(of(numbers, true).value() == 0);
    CHECK(of(numbers, true).derivative(0) == 0);
  }
}
