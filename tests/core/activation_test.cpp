// SPDX-License-Identifier: MIT
#include "mole/core/activation.hpp"

#include "support/catch.hpp"

using namespace mole;

namespace {
template <class Activation>
void check_derivative(const Activation& activation) {
  for (double z : {-7.0, -1.3, -0.2, 0.1, 0.9, 4.0}) {
    const double h = 1e-6, slope = (activation.value(z + h) - activation.value(z - h)) / (2 * h);
    CHECK(std::abs(activation.derivative(z) - slope) < 1e-8);
  }
}
}  // namespace

TEST_CASE("Activations have the derivatives of their values", "[core]") {
  check_derivative(SiLU{});
  check_derivative(GELU{});
  check_derivative(GELU{.approximate = true});
  check_derivative(ReLU{});
}

TEST_CASE("Activations have known values", "[core]") {
  CHECK(SiLU{}.value(1.0) == Approx(0.7310585786300049).epsilon(1e-14));
  CHECK(GELU{}.value(1.0) == Approx(0.8413447460685429).epsilon(1e-14));
  CHECK(GELU{.approximate = true}.value(1.0) == Approx(0.8411919906082768).epsilon(1e-14));
  CHECK(ReLU{}.value(-2.0) == 0);
  CHECK(ReLU{}.value(2.0) == 2);
  CHECK(ReLU{}.derivative(0.0) == 0);
}

TEST_CASE("Activations of very large numbers are these, or 0", "[core]") {
  for (const float z : {1e4f, -1e4f}) {
    const float value = z > 0 ? z : 0, slope = z > 0 ? 1.0f : 0.0f;
    const auto limits = [&](const auto& activation) {
      CHECK(activation.value(z) == value);
      CHECK(activation.derivative(z) == slope);
    };
    limits(SiLU{});
    limits(GELU{});
    limits(GELU{.approximate = true});
    limits(ReLU{});
  }
}
