// SPDX-License-Identifier: MIT
#include "mole/testing/router_laws.hpp"

#include "support/catch.hpp"
#include "testing/unsaid.hpp"

#include <limits>

using namespace mole;
using test::unsaid;

namespace {

enum class RouterFault {
  none,
  not_finite,
  neighbors,
  place,
  keeps_what_was_there,
  d_in,
  weight,
  touches_frozen,
  needs_d_in,
  frozen_d_in
};

/// logits = w x, for two experts, with a fault.
struct FaultyRouter {
  using Scalar = double;
  struct Parameters {
    Matrix<double> weight;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("weight", p.weight...);
    }
  };

  RouterFault fault = RouterFault::none;
  Parameters own{random_weight()};

  static Matrix<double> random_weight() { return laws::random_matrix<double>(2, 3, 1); }
  Index outputs() const { return 2; }
  const Parameters& parameters() const { return own; }

  void forward(View<const double> in, View<double> logits) const {
    for (Index n = 0; n < in.rows(); ++n)
      for (Index e = 0; e < 2; ++e) {
        double sum = fault == RouterFault::keeps_what_was_there ? logits(n, e) : 0;
        for (Index i = 0; i < 3; ++i) sum += own.weight(e, i) * in(n, i);
        if (fault == RouterFault::not_finite) sum = std::numeric_limits<double>::quiet_NaN();
        if (fault == RouterFault::neighbors) sum += in(in.rows() - 1 - n, 0);
        if (fault == RouterFault::place) sum += double(n);
        logits(n, e) = sum;
      }
  }

  void backward(View<const double> in, View<const double> d_logits, View<double> d_in, Parameters& gradients,
                auto) const {
    if (fault == RouterFault::touches_frozen && gradients.weight.empty()) gradients.weight = Matrix<double>(2, 3);
    if (d_in) Reference{}.product_nn(d_logits, own.weight.view(), d_in);
    if (d_in && fault == RouterFault::d_in) fill(d_in, 1);
    if (d_in && fault == RouterFault::frozen_d_in && gradients.weight.empty()) d_in(0, 0) += 1;
    if (gradients.weight.empty() || (fault == RouterFault::needs_d_in && !d_in)) return;
    if (fault == RouterFault::weight) gradients.weight.set_zero();
    Reference{}.product_tn(d_logits, in, gradients.weight.view());
  }
};
static_assert(TrainableRouterPolicy<FaultyRouter>);

}  // namespace

TEST_CASE("The laws of routers name the one that is broken", "[testing]") {
  const auto broken = [](RouterFault fault) { return laws::broken_router_law(FaultyRouter{fault}, 3); };
  CHECK(broken(RouterFault::none) == "");
  CHECK(unsaid(broken(RouterFault::not_finite),
               {"router of 3 features and 2 outputs, seed 11", "finite logits of 1 tokens"}) == "");
  CHECK(unsaid(broken(RouterFault::neighbors),
               {"expected token 0 of 7 to have the logits that it has alone", "difference"}) == "");
  CHECK(unsaid(broken(RouterFault::place), {"expected the logits of 7 tokens in another order", "other bits"}) == "");
  CHECK(unsaid(broken(RouterFault::keeps_what_was_there), {"expected forward to overwrite the logits of 1 tokens"}) ==
        "");
}

TEST_CASE("The laws of routers that learn name the one that is broken", "[testing]") {
  const auto broken = [](RouterFault fault) { return laws::broken_trainable_router_law(FaultyRouter{fault}, 3); };
  CHECK(broken(RouterFault::none) == "");
  CHECK(unsaid(broken(RouterFault::d_in),
               {"backward of a router of 3 features, 7 tokens, seed 12", "d_in to accumulate"}) == "");
  CHECK(unsaid(broken(RouterFault::weight), {"expected the gradient of weight to accumulate"}) == "");
  CHECK(unsaid(broken(RouterFault::touches_frozen), {"expected gradients of frozen parameters to stay empty"}) == "");
  CHECK(unsaid(broken(RouterFault::frozen_d_in), {"expected the same d_in where parameters are frozen"}) == "");
  CHECK(unsaid(broken(RouterFault::needs_d_in), {"expected the same gradient of weight where d_in is declined"}) == "");
}
