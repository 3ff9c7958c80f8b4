// SPDX-License-Identifier: MIT
#include "mole/testing/base_laws.hpp"

#include "support/catch.hpp"
#include "testing/unsaid.hpp"

using namespace mole;
using test::unsaid;

namespace {

enum class BaseFault { none, not_finite, neighbors, place, adds, transpose, overwrites };

/// y_o = 2 x_o + 1, with a fault.
struct FaultyBase {
  using Scalar = double;
  BaseFault fault = BaseFault::none;

  Index in() const { return 3; }
  Index out() const { return 3; }
  void forward(View<const double> x, View<double> y, auto) const {
    for (Index n = 0; n < x.rows(); ++n)
      for (Index o = 0; o < 3; ++o) {
        double sum = 2 * x(n, o) + 1;
        if (fault == BaseFault::adds) sum += y(n, o);
        if (fault == BaseFault::not_finite) sum = std::numeric_limits<double>::infinity();
        if (fault == BaseFault::neighbors) sum += x(0, 0);
        if (fault == BaseFault::place) sum += double(n);
        y(n, o) = sum;
      }
  }
  void backward(View<const double>, View<const double> d_y, View<double> d_x, NoParameters&, auto) const {
    for (Index n = 0; n < d_x.rows(); ++n)
      for (Index o = 0; o < 3; ++o) {
        if (fault == BaseFault::overwrites) d_x(n, o) = 0;
        d_x(n, o) += (fault == BaseFault::transpose ? 3 : 2) * d_y(n, o);
      }
  }
};
static_assert(TrainableBasePolicy<FaultyBase>);

}  // namespace

TEST_CASE("The laws of bases name the one that is broken", "[testing]") {
  const auto broken = [](BaseFault fault) { return laws::broken_base_law(FaultyBase{fault}); };
  CHECK(broken(BaseFault::none) == "");
  CHECK(unsaid(broken(BaseFault::not_finite), {"base from 3 to 3, seed 41", "finite outputs of 1 tokens"}) == "");
  CHECK(unsaid(broken(BaseFault::adds), {"expected forward to overwrite the outputs of 1 tokens"}) == "");
  CHECK(unsaid(broken(BaseFault::neighbors), {"expected the outputs of 7 tokens in another order"}) == "");
  CHECK(unsaid(broken(BaseFault::place), {"expected the outputs of 7 tokens in another order"}) == "");
}

TEST_CASE("The laws of affine bases name the one that is broken", "[testing]") {
  const auto broken = [](BaseFault fault) { return laws::broken_affine_base_law(FaultyBase{fault}); };
  CHECK(broken(BaseFault::none) == "");
  CHECK(unsaid(broken(BaseFault::transpose), {"expected the transpose of forward", "found"}) == "");
  CHECK(unsaid(broken(BaseFault::overwrites), {"expected d_x to accumulate", "found a difference of"}) == "");
}
