// SPDX-License-Identifier: MIT
#include "mole/testing/expert_laws.hpp"

#include "support/catch.hpp"
#include "testing/unsaid.hpp"

using namespace mole;
using test::unsaid;

namespace {

enum class ExpertFault { none, not_finite, serves_all, serves_none, neighbors, weightless };

/// y_o += gate (e + 1) x_o for each expert e of the token, with a fault.
struct FaultyExperts {
  using Scalar = double;
  ExpertFault fault = ExpertFault::none;

  Index experts() const { return 4; }
  Index in() const { return 3; }
  Index out() const { return 3; }
  void forward(View<const double> x, View<const double>, const Routing<double>& routing, View<double> y, auto) const {
    for (Index n = 0; n < x.rows(); ++n)
      for (Index o = 0; o < 3; ++o) {
        if (fault == ExpertFault::serves_all) y(n, o) += 1;
        for (Index p = routing.first_pair(n); p < routing.first_pair(n + 1); ++p) {
          const double gate = fault == ExpertFault::weightless ? 1 : routing.gate(p);
          const double from = fault == ExpertFault::neighbors ? x(x.rows() - 1, o) : x(n, o);
          if (fault == ExpertFault::not_finite) y(n, o) = std::numeric_limits<double>::infinity();
          if (fault != ExpertFault::serves_none) y(n, o) += gate * double(routing.expert(p) + 1) * from;
        }
      }
  }
};
static_assert(ExpertPolicy<FaultyExperts>);

}  // namespace

TEST_CASE("The laws of experts name the one that is broken", "[testing]") {
  const auto broken = [](ExpertFault fault) { return laws::broken_expert_law(FaultyExperts{fault}); };
  CHECK(broken(ExpertFault::none) == "");
  CHECK(unsaid(broken(ExpertFault::not_finite), {"4 experts from 3 to 3, seed 31", "finite results of 1 tokens"}) ==
        "");
  CHECK(unsaid(broken(ExpertFault::serves_all), {"token 1 of 7 with 0 experts to keep its y, found it changed"}) == "");
  CHECK(unsaid(broken(ExpertFault::serves_none), {"token 0 of 1 with 2 experts to change its y, found it unchanged"}) ==
        "");
  CHECK(unsaid(broken(ExpertFault::neighbors), {"expected token 0 of 7 to have the result that it has alone"}) == "");
  CHECK(unsaid(broken(ExpertFault::weightless),
               {"all 9 tokens to expert 3 with gate 0", "unchanged, found it changed"}) == "");
}
