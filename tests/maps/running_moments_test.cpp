// SPDX-License-Identifier: MIT
#include "mole/maps/running_moments.hpp"

#include "core/error_code.hpp"
#include "mole/core/matrix.hpp"
#include "support/catch.hpp"

#include <utility>

using namespace mole;

TEST_CASE("RunningMoments move by their momentum, once, and only for experts of two rows or more", "[maps]") {
  RunningMoments<double> running(2, 3, 0.25);
  Matrix<double> count(1, 2), mean(2, 3), variance(2, 3);
  count(0, 0) = 5, count(0, 1) = 1;
  fill(mean.view(), 4);
  fill(variance.view(), 8);
  const BatchMoments<double> batch{count.view(), mean.view(), variance.view()};
  running.update(batch);
  for (int again = 0; again < 2; ++again) {
    for (Index o = 0; o < 3; ++o) {
      CHECK(std::as_const(running).mean()(0, o) == 1);         // 0 + (4 - 0) / 4
      CHECK(std::as_const(running).variance()(0, o) == 3.25);  // 1 + (8 * 5 / 4 - 1) / 4
      CHECK(std::as_const(running).mean()(1, o) == 0);
      CHECK(std::as_const(running).variance()(1, o) == 1);
    }
    running.update(batch);  // finds no rows any more
  }
  running.reset();
  CHECK(running.mean()(0, 0) == 0);
  CHECK(running.variance()(0, 0) == 1);
}

TEST_CASE("RunningMoments refuse moments of other sizes before anything changes", "[maps]") {
  RunningMoments<double> running(2, 3, 1);
  Matrix<double> count(1, 2), mean(2, 3), narrow(2, 2);
  fill(count.view(), 4);
  CHECK(test::code_of([&] { running.update({count.view(), mean.view(), narrow.view()}); }) == ErrorCode::shape);
  CHECK(running.variance()(0, 0) == 1);
  CHECK(count(0, 0) == 4);
}
