// SPDX-License-Identifier: MIT
#include "mole/optim/cosine_schedule.hpp"

#include "support/catch.hpp"

#include <cmath>
#include <limits>

namespace {

using namespace mole;

constexpr double schedule_tolerance = 1e-15;

}  // namespace

TEST_CASE("The rate rises to the peak, passes the middle and ends at the floor", "[optim]") {
  const CosineSchedule schedule{.peak = 1, .warmup_steps = 10, .total_steps = 110, .floor = 0.2};
  schedule.check();
  CHECK(schedule(0) == 0);
  CHECK(schedule(1) == 0.1);
  CHECK(schedule(5) == 0.5);
  CHECK(schedule(10) == 1);
  CHECK(std::abs(schedule(60) - 0.6) < schedule_tolerance);
  CHECK(std::abs(schedule(35) - (0.2 + 0.4 * (1 + std::sqrt(0.5)))) < schedule_tolerance);
  CHECK(schedule(110) == 0.2);
  CHECK(schedule(1'000'000) == 0.2);
  for (Index step = 11; step <= 110; ++step) CHECK(schedule(step) < schedule(step - 1));
}

TEST_CASE("Without a warm-up the rate begins at the peak", "[optim]") {
  const CosineSchedule schedule{.peak = 3e-4, .total_steps = 4};
  CHECK(schedule(0) == 3e-4);
  CHECK(schedule(4) == 0);
}

TEST_CASE("Nonsense is refused", "[optim]") {
  CHECK_THROWS_AS((CosineSchedule{.peak = 1, .total_steps = 0}.check()), Error);
  CHECK_THROWS_AS((CosineSchedule{.peak = 1, .warmup_steps = 5, .total_steps = 5}.check()), Error);
  CHECK_THROWS_AS((CosineSchedule{.peak = 1, .warmup_steps = -1, .total_steps = 5}.check()), Error);
  CHECK_THROWS_AS((CosineSchedule{.peak = 1, .total_steps = 5, .floor = 2}.check()), Error);
  CHECK_THROWS_AS((CosineSchedule{.peak = 1, .total_steps = 5, .floor = -1}.check()), Error);
  CHECK_THROWS_AS((CosineSchedule{.peak = std::numeric_limits<double>::infinity(), .total_steps = 5}.check()), Error);
  CHECK_THROWS_AS((CosineSchedule{.peak = std::nan(""), .total_steps = 5}.check()), Error);
}
