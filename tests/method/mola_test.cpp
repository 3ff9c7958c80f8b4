// SPDX-License-Identifier: MIT
// The preset is the composition that it says; what it computes is pinned by the golden test.
#include "mole/method/mola.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

#include <Eigen/Core>

using namespace mole;
using namespace method_checks;

TEST_CASE("mola keeps k of its experts and renormalises", "[method]") {
  Rng rng(1);
  auto layer = mola<double>({.in = 11, .out = 13, .experts = 6, .rank = 2, .k = 3}, weight, rng, bias);
  CHECK(layer.experts().experts() == 6);
  CHECK(layer.gating().select.k == 3);
  CHECK(layer.base().weight().data() == weight.data());
  CHECK(gradient_error(layer) < 1e-8);
}

TEST_CASE("A preset takes the host's Eigen matrix and an execution of choice", "[method]") {
  Rng rng(1);
  const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> host =
      Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>::Random(13, 11);
  const auto layer = mola<float>({.in = 11, .out = 13}, host, rng, {}, Reference{});
  CHECK(layer.base().weight().data() == host.data());
}
