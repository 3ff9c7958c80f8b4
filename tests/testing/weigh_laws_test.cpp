// SPDX-License-Identifier: MIT
#include "mole/testing/weigh_laws.hpp"

#include "mole/gating/weigh/unit.hpp"
#include "support/catch.hpp"
#include "testing/unsaid.hpp"

using namespace mole;
using test::unsaid;

namespace {

enum class WeighFault {
  none,
  not_finite,
  adds,
  included,
  gradient_of_excluded,
  infinite_gradient,
  derivative,
  overwrites,
  training,
  not_chosen
};

/// gate = score, with a fault; 0 for -infinity.
struct FaultyWeigh {
  WeighFault fault = WeighFault::none;

  void forward(std::span<const double> scores, std::span<const int> chosen, std::span<double> gates,
               const Pass& pass) const {
    for (std::size_t j = 0; j < chosen.size(); ++j) {
      const double score = scores[std::size_t(chosen[j])];
      const bool excluded = kernel::is_minus_infinity(score);
      const double before = fault == WeighFault::adds ? gates[j] : 0;
      gates[j] = before + (excluded ? (fault == WeighFault::included ? 0.5 : 0) : score);
      if (fault == WeighFault::not_finite) gates[j] = std::numeric_limits<double>::quiet_NaN();
      if (fault == WeighFault::training && pass.training && !excluded) gates[j] *= score;
    }
  }
  void backward(std::span<const double> scores, std::span<const int> chosen, std::span<const double>,
                std::span<const double> d_gates, std::span<double> d_scores, const Pass&) const {
    if (fault == WeighFault::overwrites) std::fill(d_scores.begin(), d_scores.end(), 0.0);
    if (fault == WeighFault::not_chosen) d_scores[3] += 1;
    for (std::size_t j = 0; j < chosen.size(); ++j) {
      const auto e = std::size_t(chosen[j]);
      const bool excluded = kernel::is_minus_infinity(scores[e]);
      if (fault == WeighFault::infinite_gradient) d_scores[e] += 0 * scores[e];
      if (!excluded || fault == WeighFault::gradient_of_excluded)
        d_scores[e] += (fault == WeighFault::derivative ? 2 : 1) * d_gates[j];
    }
  }
};
static_assert(WeighPolicy<FaultyWeigh, double>);

/// Says 1, and gives something else.
struct FaultyUnit {
  double gate = 1;

  double constant_gate() const { return 1; }
  void forward(std::span<const double>, std::span<const int>, std::span<double> gates) const {
    std::fill(gates.begin(), gates.end(), gate);
  }
  void backward(std::span<const double>, std::span<const int>, std::span<const double>, std::span<const double>,
                std::span<double>) const {}
};

/// Has a gradient after all.
struct FaultyNone : Unit {
  template <class T>
  void backward(std::span<const T>, std::span<const int> chosen, std::span<const T>, std::span<const T> d_gates,
                std::span<T> d_scores) const {
    for (std::size_t j = 0; j < chosen.size(); ++j) d_scores[std::size_t(chosen[j])] += d_gates[j];
  }
};

}  // namespace

template <>
inline constexpr bool mole::weigh_has_gradient<FaultyNone> = false;

TEST_CASE("The laws of weighings name the one that is broken", "[testing]") {
  const auto broken = [](WeighFault fault) { return laws::broken_weigh_law(FaultyWeigh{fault}); };
  CHECK(broken(WeighFault::none) == "");
  CHECK(unsaid(broken(WeighFault::not_finite),
               {"weighing of 3 of 6 scores, seed 53", "inference: ordinary scores: expected a finite gate 0"}) == "");
  CHECK(unsaid(broken(WeighFault::adds), {"expected gate 0 to be overwritten", "over 99 and", "over -99"}) == "");
  CHECK(unsaid(broken(WeighFault::included), {"expected gate 0 of expert 4 with a score of -infinity, found 0.5"}) ==
        "");
  CHECK(unsaid(broken(WeighFault::gradient_of_excluded),
               {"expected gradient 0 of expert 4 with a score of -infinity"}) == "");
  CHECK(unsaid(broken(WeighFault::infinite_gradient), {"scores of -infinity: expected a finite gradient of score 4"}) ==
        "");
  CHECK(unsaid(broken(WeighFault::derivative), {"expected backward to add the derivative to d_scores"}) == "");
  CHECK(unsaid(broken(WeighFault::training),
               {"seed 53, training: expected backward to add the derivative to d_scores"}) == "");
  CHECK(unsaid(broken(WeighFault::overwrites), {"expected d_scores to accumulate, 0.5 and"}) == "");
  CHECK(unsaid(broken(WeighFault::not_chosen), {"expected backward to add the derivative to d_scores"}) == "");
}

TEST_CASE("The laws of weighings compare gates with constant_gate(), and the derivative only where it is one",
          "[testing]") {
  CHECK(laws::broken_weigh_law(FaultyUnit{}) == "");
  CHECK(unsaid(laws::broken_weigh_law(FaultyUnit{2}), {"expected constant_gate() = 1 as gate 0, found 2"}) == "");
  CHECK(unsaid(laws::broken_weigh_law(FaultyNone{}, {.gradient_is_derivative = false}),
               {"weigh_has_gradient is false: expected backward to add nothing"}) == "");
  CHECK(laws::broken_weigh_law(FaultyWeigh{WeighFault::derivative}, {.gradient_is_derivative = false}) == "");
  CHECK(unsaid(laws::broken_weigh_law(FaultyWeigh{WeighFault::not_chosen}, {.gradient_is_derivative = false}),
               {"expected no gradient where no expert is chosen"}) == "");
}
