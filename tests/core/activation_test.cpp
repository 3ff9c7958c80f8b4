// SPDX-License-Identifier: MIT
#include "mole/core/activation.hpp"

#include "mole/kernel/vector.hpp"
#include "support/catch.hpp"

#include <array>
#include <cmath>
#include <limits>

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

TEST_CASE("SiLU of a vector is SiLU of its numbers, of very large ones and NaN too", "[core]") {
  static_assert(VectorActivationPolicy<SiLU> && !VectorActivationPolicy<GELU> && !VectorActivationPolicy<ReLU>);
  using Arch = kernel::DefaultArchitecture;
  using Vector = kernel::Vector<Arch, float>;
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  const auto same = [](float found, float expected) {
    return std::isnan(expected) ? std::isnan(found) : std::abs(found - expected) <= 1e-6f * (1 + std::abs(expected));
  };
  for (const float z : {0.0f, -0.0f, 1e-30f, 0.3f, -2.5f, 17.0f, -88.0f, -104.0f, 1e4f, -1e4f, infinity, nan}) {
    std::array<float, 16> value{}, slope{};
    SiLU{}.value(Vector(z)).store_unaligned(value.data());
    SiLU{}.derivative(Vector(z)).store_unaligned(slope.data());
    for (std::size_t i = 0; i < std::size_t(kernel::step_of<Arch, float>); ++i) {
      CAPTURE(z, value[i], slope[i]);
      CHECK((z == infinity ? value[i] == infinity : same(value[i], SiLU{}.value(z))));
      CHECK(same(slope[i], SiLU{}.derivative(z)));
    }
  }
}
