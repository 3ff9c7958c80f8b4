// SPDX-License-Identifier: MIT
#include "mole/optim/clip_norm.hpp"

#include "support/catch.hpp"
#include "tensors.hpp"

#include <cmath>
#include <limits>

namespace {

using namespace mole;
using namespace mole::test;

/// Two gradients of 3 and 4, a frozen third.
struct Known {
  Matrix<double> a{1, 2}, b{2, 1}, frozen{1, 1};
  Known() {
    a(0, 1) = 3;
    b(1, 0) = -4;
  }
  void operator()(auto&& f) {
    f("a", a.view(), a.view());
    f("frozen", frozen.view(), View<double>());
    f("b", b.view(), b.view());
  }
};

}  // namespace

TEST_CASE("A norm above the bound is scaled to it, and returned as it was", "[optim]") {
  Known known;
  CHECK(clip_norm(known, 1.0) == 5);
  CHECK(std::abs(known.a(0, 1) - 0.6) < 1e-15);
  CHECK(std::abs(known.b(1, 0) + 0.8) < 1e-15);
  CHECK(std::abs(clip_norm(known, 10.0) - 1) < 1e-15);
}

TEST_CASE("A norm at or below the bound changes no bit", "[optim]") {
  for (double bound : {5.0, 6.0, std::numeric_limits<double>::infinity()}) {
    Known known;
    CHECK(clip_norm(known, bound) == 5);
    CHECK(known.a(0, 1) == 3);
  }
}

TEST_CASE("Squares of small floats do not vanish in the norm", "[optim]") {
  Tensors<float> parameters = random_tensors<float>(1), gradients = random_tensors<float>(2);
  for (Matrix<float>& gradient : gradients.values) fill(gradient.view(), 1e-30f);
  const double norm = clip_norm(parameters, gradients, 1.0);
  CHECK(std::abs(norm / (double(1e-30f) * std::sqrt(33.0)) - 1) < 1e-14);
}

TEST_CASE("A norm that is not finite leaves the gradients to the caller", "[optim]") {
  for (double broken : {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN(), 1e300}) {
    Known known;
    known.a(0, 0) = broken;
    CHECK_FALSE(std::isfinite(clip_norm(known, 1.0)));
    CHECK(known.b(1, 0) == -4);
  }
}

TEST_CASE("A bound that is not above 0 is refused", "[optim]") {
  Known known;
  CHECK_FALSE(complaint(ErrorCode::option, [&] { clip_norm(known, 0.0); }).empty());
  CHECK_FALSE(complaint(ErrorCode::option, [&] { clip_norm(known, std::nan("")); }).empty());
  CHECK(known.a(0, 1) == 3);
}
