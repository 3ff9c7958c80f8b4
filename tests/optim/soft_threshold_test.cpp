// SPDX-License-Identifier: MIT
#include "mole/optim/soft_threshold.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/seed.hpp"

#include <cmath>
#include <limits>
#include <vector>

using namespace mole;

namespace {

std::vector<double> shrunk(std::vector<double> values, double threshold, ThresholdMode mode) {
  soft_threshold(std::span(values), threshold, mode);
  return values;
}

/// The release's three updates in place, each over all of a tensor.
template <class T>
void released(std::vector<T>& p, T lambda) {
  for (T& v : p)
    if (v > lambda) v -= lambda;
  for (T& v : p)
    if (v < -lambda) v += lambda;
  for (T& v : p)
    if (std::abs(v) < lambda) v = 0;
}

}  // namespace

TEST_CASE("The exact threshold moves every number to 0 by the threshold, and not beyond", "[optim]") {
  const auto exact = ThresholdMode::exact;
  CHECK(shrunk({1.5, 1, 0.75, 0, 2, 2.5}, 1, exact) == std::vector<double>{0.5, 0, 0, 0, 1, 1.5});
  CHECK(shrunk({-1.5, -1, -0.75, -2, -2.5}, 1, exact) == std::vector<double>{-0.5, 0, 0, -1, -1.5});
}

TEST_CASE("The released threshold has a dead zone of twice its size, and leaves its own size alone", "[optim]") {
  const auto zone = ThresholdMode::dead_zone;
  CHECK(shrunk({1.5, 1, 0.75, 0, 2, 2.5}, 1, zone) == std::vector<double>{0, 1, 0, 0, 1, 1.5});
  CHECK(shrunk({-1.5, -1, -0.75, -2, -2.5}, 1, zone) == std::vector<double>{0, -1, 0, -1, -1.5});
}

TEMPLATE_TEST_CASE("The released threshold does what the released code does, in its order", "[optim]", float, double) {
  using T = TestType;
  test::TestRng rng;
  std::vector<T> values(1000);
  for (T& v : values) v = T(rng() % 17) / 4 - 2;  // many of them at the threshold and at twice the threshold
  for (T& v : std::span(values).first(500)) v = T(4 * unit_interval(rng()) - 2);
  for (double threshold : {0.0, 0.25, 0.5, 0.3, 1.0}) {
    auto found = values, expected = values;
    soft_threshold(std::span(found), threshold, ThresholdMode::dead_zone);
    released(expected, T(threshold));
    CHECK(found == expected);
  }
}

TEST_CASE("Only the exact threshold minimizes half the squared distance and the threshold times the size", "[optim]") {
  test::TestRng rng;
  const double xi = 0.4;
  const auto cost = [&](double v, double w) { return (v - w) * (v - w) / 2 + xi * std::abs(w); };
  double worst = 0;
  for (int i = 0; i < 100; ++i) {
    const double v = 2 * unit_interval(rng()) - 1;
    const double found = cost(v, shrunk({v}, xi, ThresholdMode::exact)[0]);
    for (double w = -1.5; w <= 1.5; w += 1e-3) worst = std::max(worst, found - cost(v, w));
  }
  CHECK(worst <= 1e-15);
  CHECK(cost(0.6, shrunk({0.6}, xi, ThresholdMode::dead_zone)[0]) >
        cost(0.6, shrunk({0.6}, xi, ThresholdMode::exact)[0]));
}

TEST_CASE("A threshold of 0 changes no bit, a NaN stays, and infinity takes all", "[optim]") {
  const double infinity = std::numeric_limits<double>::infinity();
  for (ThresholdMode mode : {ThresholdMode::exact, ThresholdMode::dead_zone}) {
    CHECK(shrunk({1.5, 0, -3}, 0, mode) == std::vector<double>{1.5, 0, -3});
    CHECK(std::signbit(shrunk({-0.0}, 0, mode)[0]));
    CHECK(std::isnan(shrunk({std::nan("")}, 1, mode)[0]));
    CHECK(shrunk({infinity, -infinity}, 1, mode) == std::vector<double>{infinity, -infinity});
    CHECK(shrunk({1e300, -1e300}, infinity, mode) == std::vector<double>{0, 0});
    CHECK(test::code_of([&] { shrunk({1}, -1e-9, mode); }) == ErrorCode::option);
    CHECK(test::code_of([&] { shrunk({1}, std::nan(""), mode); }) == ErrorCode::option);
  }
}
