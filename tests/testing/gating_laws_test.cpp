// SPDX-License-Identifier: MIT
#include "mole/testing/gating_laws.hpp"

#include "support/catch.hpp"
#include "testing/unsaid.hpp"

using namespace mole;
using test::unsaid;

namespace {

enum class GatingFault {
  none,
  not_finite,
  too_many,
  unfinished,
  token_lost,
  neighbors,
  order,
  last,
  huge,
  nan,
  nan_first,
  claims_nan
};

/// Gives each token the expert of its largest logit, and a gate of 1, with a fault.
struct FaultyGating {
  GatingFault fault = GatingFault::none;

  void check(Index) const {}
  Index columns(Index experts) const { return experts; }
  Index max_pairs(Index tokens, Index) const { return fault == GatingFault::too_many ? tokens / 2 : 2 * tokens; }

  void choose(Trace<double>& trace, auto) const {
    const View<const double> logits = std::as_const(trace).logits();
    Routing<double> routing;  // in memory of its own: it may break its bounds
    routing.start(trace.experts());
    for (Index n = 0; n < trace.tokens(); ++n) {
      if (fault == GatingFault::token_lost && n == 5) continue;
      int best = 0;
      for (int e = 1; e < trace.experts(); ++e)
        if (logits(n, e) > logits(n, best) || (fault == GatingFault::last && logits(n, e) == logits(n, best)) ||
            (fault != GatingFault::nan_first && std::isnan(logits(n, best))))
          best = e;
      if (fault == GatingFault::neighbors && n > 0 && logits(0, 0) > 0) best = 0;
      if (fault == GatingFault::order && trace.tokens() > 1) best = int(n % trace.experts());
      if (std::isnan(logits(n, 0)) || fault == GatingFault::claims_nan) trace.nan_tokens += fault != GatingFault::nan;
      double gate = fault == GatingFault::not_finite ? 1 / (logits(n, best) - logits(n, best)) : 1;
      if (fault == GatingFault::huge) gate = logits(n, 0) * 0 + 1;
      routing.push(best, gate);
      routing.end_token();
    }
    if (fault != GatingFault::unfinished) routing.finish();
    trace.routing = std::move(routing);
  }
  void backward(Trace<double>&, auto) const {}
};
static_assert(TrainableGatingPolicy<FaultyGating, double>);

}  // namespace

TEST_CASE("The laws of gatings name the one that is broken", "[testing]") {
  const auto broken = [](GatingFault fault, const laws::GatingLawOptions& options = {}) {
    return laws::broken_gating_law<double>(FaultyGating{fault}, 5, options);
  };
  CHECK(broken(GatingFault::none) == "");
  CHECK(unsaid(broken(GatingFault::unfinished), {"gating of 5 experts, seed 21", "expected a finished routing"}) == "");
  CHECK(unsaid(broken(GatingFault::token_lost), {"random logits: expected a routing of 7 tokens, found 6"}) == "");
  CHECK(unsaid(broken(GatingFault::not_finite), {"random logits: expected finite gates"}) == "");
  CHECK(unsaid(broken(GatingFault::too_many), {"expected no Error, found", "at most 0 pairs"}) == "");
  CHECK(unsaid(broken(GatingFault::claims_nan), {"expected no token with a NaN, found 1 of 1"}) == "");
  CHECK(unsaid(broken(GatingFault::neighbors), {"expected token", "of 7 to have"}) == "");
  CHECK(unsaid(broken(GatingFault::order),
               {"expected token 0 of 7 to have the same experts and gates in another order"}) == "");
  CHECK(unsaid(broken(GatingFault::last), {"equal logits: expected expert 0 as choice 0 of token 0, found 4"}) == "");
  CHECK(unsaid(broken(GatingFault::huge), {"huge or infinite logits: expected finite gates"}) == "");
  CHECK(unsaid(broken(GatingFault::nan_first), {"NaN as logit 0 of 5: expected the same experts with it as logit 4"}) ==
        "");
  CHECK(unsaid(broken(GatingFault::nan), {"expected 1 token of 3 to be counted as one with a NaN, found 0"}) == "");
}

TEST_CASE("The laws of gatings ask for no more than the options say", "[testing]") {
  const auto broken = [](GatingFault fault, const laws::GatingLawOptions& options) {
    return laws::broken_gating_law<double>(FaultyGating{fault}, 5, options);
  };
  CHECK(broken(GatingFault::order, {.whole_call = true}) == "");
  CHECK(broken(GatingFault::last, {.first_of_equals = false}) == "");
  CHECK(broken(GatingFault::last, {.of_equals = {4}}) == "");
  CHECK(unsaid(broken(GatingFault::none, {.of_equals = {2}}), {"expected expert 2 as choice 0 of token 0, found 0"}) ==
        "");
  CHECK(unsaid(broken(GatingFault::none, {.of_equals = {0, 1}}), {"expected 2 experts for token 0, found 1"}) == "");
}
