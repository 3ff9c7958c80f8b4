// SPDX-License-Identifier: MIT
#include "mole/loss/importance_cv2.hpp"

#include "loss_trace.hpp"
#include "support/catch.hpp"

namespace {

using namespace mole;
using namespace mole::test;

}  // namespace

TEST_CASE("Importance (3, 1, 0, 0) has its known variation", "[loss]") {
  Trace<double> trace = empty_trace(4, 4);
  route(trace, {{0}, {0}, {0}, {1}});
  CHECK(near(importance_cv2(trace, {.epsilon = 0}), 2.0));
  CHECK(near(importance_cv2(trace, {.unbiased = false, .epsilon = 0}), 1.5));
  CHECK(near(importance_cv2(trace), 2.0, 1e-9));
  CHECK(near(importance_cv2(trace, {.coefficient = 0.1, .epsilon = 0}), 0.2));
}

TEST_CASE("Even importance has no variation", "[loss]") {
  Trace<double> trace = empty_trace(2, 4);
  route(trace, {{0, 1}, {2, 3}}, 0.5);
  CHECK(importance_cv2(trace) == 0);
  CHECK(all_zero(trace.d_gate()));
}

TEST_CASE("The importance loss adds the gradient of its value", "[loss]") {
  const std::vector<std::uint8_t> mask{1, 0, 1, 1, 1, 1};
  for (bool unbiased : {false, true}) {
    Trace<double> trace = random_trace(6, 5, 1, {.token_mask = mask});
    const ImportanceCv2Options options{.coefficient = 0.7, .unbiased = unbiased, .epsilon = 0.01};
    importance_cv2(trace, options);
    const std::vector<double> gradient = copied(trace.d_gate());
    CHECK(gradient_error(trace.routing.gates(), gradient, [&] { return importance_cv2(trace, options); }) <
          gradient_tolerance);
    CHECK(all_zero(trace.routing.of_token(std::span<const double>(gradient), 1)));
    CHECK(all_zero(elements(trace.d_scores())));
  }
}

TEST_CASE("One expert, no token and no weight have no variation", "[loss]") {
  const std::vector<std::uint8_t> none(3, 0);
  Trace<double> alone = random_trace(3, 1), empty = empty_trace(0, 3);
  Trace<double> masked = random_trace(3, 3, 0, {.token_mask = none});
  for (bool unbiased : {false, true})
    for (double epsilon : {0.0, 1e-10}) {
      const ImportanceCv2Options options{.unbiased = unbiased, .epsilon = epsilon};
      CHECK(importance_cv2(alone, options) == 0);
      CHECK(importance_cv2(empty, options) == 0);
      CHECK(importance_cv2(masked, options) == 0);
      CHECK(all_zero(alone.d_gate()));
      CHECK(all_zero(masked.d_gate()));
    }
}

TEST_CASE("The importance loss is that of the tokens that count, and of the experts with a score", "[loss]") {
  for (bool unbiased : {false, true})
    CHECK(error_of_what_is_left_out([&](auto& trace) {
            return importance_cv2(trace, {.coefficient = 0.7, .unbiased = unbiased});
          }) < value_tolerance);
}

TEST_CASE("The importance loss adds to the gradients that are there", "[loss]") {
  CHECK(error_of_addition([](auto& trace) { return importance_cv2(trace, {.coefficient = 0.7}); }) < value_tolerance);
}
