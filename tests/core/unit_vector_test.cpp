// SPDX-License-Identifier: MIT
#include "mole/core/unit_vector.hpp"

#include "loss/loss_trace.hpp"
#include "support/catch.hpp"

#include <array>

using namespace mole;

namespace {

UnitVector of(const std::array<double, 3>& v) {
  return UnitVector::of(std::span<const double>(v));
}

}  // namespace

TEST_CASE("A direction has length 1, whatever the vector's", "[core]") {
  for (double size : {1.0, 1e-9, 1e9}) {
    const UnitVector d = of({2 * size, -3 * size, 6 * size});
    CHECK(test::near(d.length / size, 7));
    CHECK(test::near(d.scale() * d.length, 1));
  }
  const std::array<float, 2> large{3e30f, 4e30f};  // their squares are beyond float
  CHECK(test::near(UnitVector::of(std::span<const float>(large)).length, 5e30, 1e-6));
}

TEST_CASE("A vector too short for a direction is divided by 1e-12, and one of zeros has none", "[core]") {
  const UnitVector tiny = of({3e-14, 4e-14, 0});
  CHECK(test::near(tiny.length * 1e13, 0.5));
  CHECK(test::near(tiny.scale() * 1e-12, 1));
  CHECK(tiny.d_scale() == tiny.scale());
  CHECK(tiny.inward(2) == 0);
  const UnitVector none = of({0, 0, 0});
  CHECK(none.d_scale() == 0);
  CHECK(std::isfinite(none.scale()));
}

TEST_CASE("Gradients of a direction become those of its vector", "[core]") {
  std::array<double, 3> v{0.7, -1.1, 0.4};
  const std::array<double, 3> d_u{0.3, 0.9, -0.5};
  const auto value = [&] {
    double sum = 0;
    for (std::size_t i = 0; i < 3; ++i) sum += d_u[i] * v[i] * of(v).scale();
    return sum;
  };
  const UnitVector direction = of(v);
  const double radial = value();
  std::array<double, 3> d_v{};
  for (std::size_t i = 0; i < 3; ++i)
    d_v[i] = direction.d_scale() * (d_u[i] - direction.inward(radial) * v[i] * direction.scale());
  CHECK(test::gradient_error(v, d_v, value) < test::gradient_tolerance);
}
