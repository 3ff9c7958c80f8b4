// SPDX-License-Identifier: MIT
#include "mole/optim/threshold_stages.hpp"

#include "support/catch.hpp"

using namespace mole;

namespace {

/// The release's lists, from linspace, exp and log.
std::vector<double> released(ThresholdSpacing spacing, double first, double last, Index count) {
  std::vector<double> stages;
  for (Index j = 0; j < count; ++j) {
    const auto line = [&](double from, double to) {
      return count == 1 ? from : from + double(j) * (to - from) / double(count - 1);
    };
    if (spacing == ThresholdSpacing::linear) stages.push_back(line(first, last));
    if (spacing == ThresholdSpacing::log_linear) stages.push_back(std::log(line(std::exp(first), std::exp(last))));
    if (spacing == ThresholdSpacing::exp_linear) stages.push_back(std::exp(line(std::log(first), std::log(last))));
  }
  return stages;
}

}  // namespace

TEST_CASE("The stages are those of SoRA's lists, and end where they say", "[optim]") {
  for (auto spacing : {ThresholdSpacing::linear, ThresholdSpacing::log_linear, ThresholdSpacing::exp_linear})
    for (Index count : {1, 2, 7, 50})
      for (auto [first, last] : {std::pair(1e-4, 7e-4), std::pair(0.25, 2.0), std::pair(0.5, 0.5)}) {
        const auto found = threshold_stages(spacing, first, last, count);
        const auto expected = released(spacing, first, last, count);
        CAPTURE(int(spacing), count, first, last);
        REQUIRE(found.size() == expected.size());
        for (std::size_t j = 0; j < found.size(); ++j) CHECK(std::abs(found[j] - expected[j]) < 1e-15);
        CHECK(found.front() == first);
        CHECK(found.back() == (count == 1 ? first : last));
      }
  CHECK(threshold_stages(ThresholdSpacing::linear, 0, 6, 7) == std::vector<double>{0, 1, 2, 3, 4, 5, 6});
}

TEST_CASE("The first and the last stage are exact, also where the sum of the steps is rounded", "[optim]") {
  for (auto spacing : {ThresholdSpacing::linear, ThresholdSpacing::log_linear, ThresholdSpacing::exp_linear})
    for (int i = 1; i < 100; ++i)
      for (Index count : {2, 3, 7}) {
        const double first = i * 0.01, last = i * 0.031;
        const auto stages = threshold_stages(spacing, first, last, count);
        CAPTURE(int(spacing), i, count);
        CHECK(stages.front() == first);
        CHECK(stages.back() == last);
      }
}

TEST_CASE("Stages that cannot be are refused", "[optim]") {
  const auto linear = ThresholdSpacing::linear;
  CHECK_THROWS_AS(threshold_stages(linear, -1, 1, 3), Error);
  CHECK_THROWS_AS(threshold_stages(linear, 2, 1, 3), Error);
  CHECK_THROWS_AS(threshold_stages(linear, 0, 1, 0), Error);
  CHECK_THROWS_AS(threshold_stages(linear, 0, std::numeric_limits<double>::infinity(), 3), Error);
  CHECK_THROWS_AS(threshold_stages(linear, std::nan(""), 1, 3), Error);
  CHECK_THROWS_AS(threshold_stages(ThresholdSpacing::exp_linear, 0, 1, 3), Error);
}
