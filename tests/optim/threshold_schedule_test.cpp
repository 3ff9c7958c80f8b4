// SPDX-License-Identifier: MIT
#include "mole/optim/threshold_schedule.hpp"

#include "mole/optim/soft_threshold.hpp"
#include "support/catch.hpp"

#include <vector>

using namespace mole;

namespace {

/// The thresholds that the release's loop applies, one an iteration; 0 where it applies none.
std::vector<double> released(const ThresholdSchedule& s) {
  const double dense = s.dense_fraction * double(s.iterations);
  const Index step = Index(std::floor((double(s.iterations) - dense) / double(s.stages)));
  const auto lambda = [&](Index j) { return s.kappa_max * double(std::min(j, s.stages - 1)) / double(s.stages - 1); };
  std::vector<double> applied;
  Index id = 0;
  double threshold = lambda(0);
  for (Index t = 0; t < s.iterations; ++t) {
    if (step > 0 && double(t) >= dense && t % step == 0) threshold = lambda(++id);
    applied.push_back(double(t) > dense ? threshold : 0);
  }
  return applied;
}

}  // namespace

TEST_CASE("The threshold of every iteration is that of CoDyRA's training loop", "[optim]") {
  for (const ThresholdSchedule& schedule :
       {ThresholdSchedule{}, ThresholdSchedule{.stages = 2, .iterations = 11},
        ThresholdSchedule{.dense_fraction = 0.3, .stages = 7, .iterations = 101},
        ThresholdSchedule{.dense_fraction = 0, .kappa_max = 1, .stages = 5, .iterations = 23},
        ThresholdSchedule{.dense_fraction = 0.73, .stages = 3, .iterations = 57},
        ThresholdSchedule{.dense_fraction = 1}, ThresholdSchedule{.stages = 50, .iterations = 60}}) {
    schedule.check();
    const auto expected = released(schedule);
    CAPTURE(schedule.dense_fraction, schedule.stages, schedule.iterations);
    for (Index t = 0; t < schedule.iterations; ++t) {
      CAPTURE(t);
      CHECK(schedule(t) == expected[std::size_t(t)]);
    }
  }
}

TEST_CASE("With the defaults nothing is cut for 250 iterations, and then kappa rises every fifth", "[optim]") {
  const ThresholdSchedule schedule;
  const auto kappa = [](Index j) { return 5e-3 * double(j) / 49; };
  for (Index t = 0; t <= 250; ++t) CHECK(schedule(t) == 0);
  CHECK(schedule(251) == kappa(1));
  CHECK(schedule(254) == kappa(1));
  CHECK(schedule(255) == kappa(2));
  CHECK(schedule(489) == kappa(48));
  CHECK(schedule(490) == 5e-3);
  CHECK(schedule(499) == 5e-3);
}

TEST_CASE("An untouched gate shrinks by the sum of the thresholds until it is in the dead zone", "[optim]") {
  const ThresholdSchedule schedule{.kappa_max = 1e-3, .stages = 5, .iterations = 100};
  std::vector<double> gate{1.0, -0.02};
  double sum = 0, expected = 0.02;
  for (Index t = 0; t < schedule.iterations; ++t) {
    const double kappa = schedule(t);
    sum += kappa;
    expected = expected < 2 * kappa ? 0 : expected - kappa;
    soft_threshold(std::span(gate), kappa, ThresholdMode::dead_zone);
    if (t <= 50) CHECK(gate[1] == -0.02);
    CHECK(std::abs(gate[1] + expected) < 1e-15);
  }
  CHECK(gate[1] == 0);
  CHECK(std::abs(gate[0] - (1 - sum)) < 1e-14);
}

TEST_CASE("A schedule that cannot be is refused", "[optim]") {
  CHECK_THROWS_AS((ThresholdSchedule{.dense_fraction = -0.1}.check()), Error);
  CHECK_THROWS_AS((ThresholdSchedule{.dense_fraction = 1.1}.check()), Error);
  CHECK_THROWS_AS((ThresholdSchedule{.kappa_max = -1}.check()), Error);
  CHECK_THROWS_AS((ThresholdSchedule{.stages = 1}.check()), Error);
  CHECK_THROWS_AS((ThresholdSchedule{.iterations = 0}.check()), Error);
}
