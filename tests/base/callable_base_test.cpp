// SPDX-License-Identifier: MIT
#include "mole/base/callable_base.hpp"

#include "mole/testing/base_laws.hpp"
#include "support/catch.hpp"

using namespace mole;

namespace {
/// y_o = 2 x_0 + o, and its transpose.
const auto doubled_first = [](View<const double> x, View<double> y) {
  for (Index n = 0; n < y.rows(); ++n)
    for (Index o = 0; o < y.cols(); ++o) y(n, o) = 2 * x(n, 0) + double(o);
};
const auto doubled_first_backward = [](View<const double>, View<const double> d_y, View<double> d_x) {
  for (Index n = 0; n < d_y.rows(); ++n)
    for (Index o = 0; o < d_y.cols(); ++o) d_x(n, 0) += 2 * d_y(n, o);
};
}  // namespace

TEST_CASE("CallableBase keeps the laws of bases with any function of the host", "[base]") {
  CHECK(laws::broken_base_law(callable_base<double>(3, 4, doubled_first)) == "");
  CHECK(laws::broken_affine_base_law(callable_base<double>(3, 4, doubled_first, doubled_first_backward)) == "");
}

TEST_CASE("CallableBase passes gradients on only if the host can", "[base]") {
  using Forward = decltype(callable_base<double>(3, 4, doubled_first));
  using Both = decltype(callable_base<double>(3, 4, doubled_first, doubled_first_backward));
  STATIC_REQUIRE(BasePolicy<Forward>);
  STATIC_REQUIRE_FALSE(TrainableBasePolicy<Forward>);
  STATIC_REQUIRE(TrainableBasePolicy<Both>);
}
