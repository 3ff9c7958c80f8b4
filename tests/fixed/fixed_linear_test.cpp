// SPDX-License-Identifier: MIT
#include "mole/fixed/fixed_linear.hpp"

#include "support/catch.hpp"

#include <array>
#include <cmath>
#include <limits>

using namespace mole;

TEST_CASE("Of equal logits the lower expert is chosen, and NaN is below all", "[fixed]") {
  FixedLinear<float, 2, 1, 1, 4, 2> fixed;
  auto& numbers = fixed.numbers;
  for (std::size_t e = 0; e < 4; ++e) {
    numbers.down[e][0][0] = 1;
    numbers.up[e][0][0] = float(e + 1);
  }
  numbers.gate = FixedGate::unit;
  const std::array<float, 2> x{1, 0};
  float y = 0;
  fixed.forward(x.data(), &y);
  CHECK(y == 1 + 2);
  numbers.router_bias = {1, 3, 2, 3};
  fixed.forward(x.data(), &y);
  CHECK(y == 2 + 4);
  numbers.router_bias = {std::numeric_limits<float>::quiet_NaN(), -2, -1, -3};
  fixed.forward(x.data(), &y);
  CHECK(y == 2 + 3);
  numbers.gate = FixedGate::raw;
  fixed.forward(x.data(), &y);
  const double total = std::exp(-1.) + std::exp(-2.) + std::exp(-3.);
  CHECK(y == Approx((3 * std::exp(-1.) + 2 * std::exp(-2.)) / total));
}

TEST_CASE("A default-made FixedLinear is all zeros", "[fixed]") {
  const FixedLinear<double, 3, 2, 1> zero;
  const std::array<double, 3> x{1, 2, 3};
  std::array<double, 2> y{7, 7};
  zero.forward(x.data(), y.data());
  CHECK(y == std::array<double, 2>{0, 0});
  static_assert(noexcept(zero.forward(x.data(), y.data())));
}
