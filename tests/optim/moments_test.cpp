// SPDX-License-Identifier: MIT
#include "mole/optim/moments.hpp"

#include "support/catch.hpp"
#include "tensors.hpp"

namespace {

using namespace mole;
using namespace mole::test;

}  // namespace

TEST_CASE("State is zero, contiguous, and in the order of the walk", "[optim]") {
  Tensors<float> parameters = random_tensors<float>(1), gradients = random_tensors<float>(2);
  Moments<double, 2> moments;
  CHECK_FALSE(moments.reserved());
  moments.reserve([&](auto&& f) { parameters.for_each_tensor(f, gradients); });
  CHECK(moments.reserved());
  std::vector<std::span<double>> first, second;
  moments.for_each_state([&](std::string_view, std::span<double> a, std::span<double> b) {
    first.push_back(a);
    second.push_back(b);
  });
  REQUIRE(first.size() == 3);
  CHECK(first[0].size() == 6);
  CHECK(first[1].data() == first[0].data() + 6);
  CHECK(second[2].data() == second[0].data() + 26);
  CHECK(second[2].size() == 7);
  for (std::span<double> span : first)
    for (double x : span) CHECK(x == 0);
}

TEST_CASE("A walk of frozen tensors alone is remembered as such", "[optim]") {
  Tensors<float> parameters = random_tensors<float>(1), gradients = parameters;
  const auto walk = [&](auto&& f) { parameters.for_each_tensor(f, gradients); };
  for (Matrix<float>& gradient : gradients.values) gradient = {};
  Moments<float, 1> moments;
  moments.reserve(walk);
  CHECK(moments.reserved());
  CHECK(complaint(ErrorCode::shape, [&] { moments.check(walk); }).empty());
  gradients = parameters;
  CHECK(complaint(ErrorCode::shape, [&] { moments.check(walk); }) ==
        "optimizer: expected no trained tensor after the first step's, found 'router.weight'");
}

TEST_CASE("State that is reserved anew is that of the new walk alone, and zero", "[optim]") {
  Tensors<float> parameters = random_tensors<float>(1), gradients = random_tensors<float>(2);
  const auto walk = [&](auto&& f) { parameters.for_each_tensor(f, gradients); };
  Moments<double, 1> moments;
  for (int round = 0; round < 2; ++round) {
    moments.reserve(walk);
    CHECK(complaint(ErrorCode::shape, [&] { moments.check(walk); }).empty());
    int tensors = 0;
    moments.for_each_state([&](std::string_view, std::span<double> state) {
      ++tensors;
      for (double& number : state) CHECK(std::exchange(number, 1.0) == 0);
    });
    CHECK(tensors == 3);
  }
}

TEST_CASE("A gradient of another shape is refused, though it has as many elements", "[optim]") {
  Tensors<float> parameters = random_tensors<float>(1), gradients = random_tensors<float>(2);
  const auto walk = [&](auto&& f) { parameters.for_each_tensor(f, gradients); };
  Moments<double, 1> moments;
  moments.reserve(walk);
  gradients.values[0] = Matrix<float>(gradients.values[0].cols(), gradients.values[0].rows());
  REQUIRE(gradients.values[0].rows() != parameters.values[0].rows());
  CHECK_FALSE(complaint(ErrorCode::shape, [&] { moments.check(walk); }).empty());
}
