// SPDX-License-Identifier: MIT
#include "mole/loss/specialization_balance.hpp"

#include "core/error_code.hpp"
#include "loss_trace.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace mole::test;

TEST_CASE("An even load of even tokens is worth alpha k / E - lambda log E", "[loss]") {
  for (Index k : {1, 2}) {
    Trace<double> trace = empty_trace(4, 4);
    fill(trace.scores(), 0.25);
    route(trace, k == 1 ? std::vector<std::vector<int>>{{0}, {1}, {2}, {3}}
                        : std::vector<std::vector<int>>{{0, 1}, {2, 3}, {0, 1}, {2, 3}});
    CHECK(near(specialization_balance(trace, {.alpha = 2, .lambda = 0.5}), 2 * double(k) / 4 - 0.5 * std::log(4)));
    CHECK(near(specialization_balance(trace, {.alpha = 2, .lambda = -0.5}), 2 * double(k) / 4 + 0.5 * std::log(4)));
  }
}

TEST_CASE("The specialization balance adds alpha m_e + lambda (log p_e + 1), each over T", "[loss]") {
  Trace<double> trace = random_trace(5, 4);
  specialization_balance(trace, {.alpha = 0.7, .lambda = 0.2});
  for (Index e = 0; e < 4; ++e)
    for (Index n = 0; n < 5; ++n) {
      const double m = double(trace.routing.load(e)) / 5;
      CHECK(near(trace.d_scores()(n, e), (0.7 * m + 0.2 * (std::log(trace.scores()(n, e)) + 1)) / 5));
    }
}

TEST_CASE("The specialization balance is that of what counts, and adds to gradients that are there", "[loss]") {
  const auto loss = [](auto& trace) { return specialization_balance(trace, {.alpha = 0.7, .lambda = 0.2}); };
  CHECK(error_of_what_is_left_out(loss) < value_tolerance);
  CHECK(error_of_addition(loss) < value_tolerance);
}

TEST_CASE("The specialization balance refuses coefficients beyond float, before it adds anything", "[loss]") {
  Trace<double> trace = random_trace(3, 2);
  CHECK(code_of([&] { specialization_balance(trace, {.lambda = 1e31}); }) == ErrorCode::option);
  CHECK(all_zero(elements(trace.d_scores())));
}
