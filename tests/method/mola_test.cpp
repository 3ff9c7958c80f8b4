// SPDX-License-Identifier: MIT
// The preset is the composition that it says; what it computes is pinned by the golden test.
#include "mole/method/mola.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

#include <Eigen/Core>

using namespace mole;
using namespace method_checks;

TEST_CASE("mola keeps k of its experts and renormalizes", "[method]") {
  Rng rng(1);
  auto layer = mola({.experts = 6, .rank = 2, .k = 3}, DenseBase{weight, bias}, rng);
  CHECK(layer.experts().experts() == 6);
  CHECK(layer.gating().select.k == 3);
  CHECK(layer.base().weight().data() == weight.data());
  CHECK(gradient_error(layer) < 1e-8);
}

TEST_CASE("A preset takes the host's Eigen matrix and an execution of choice", "[method]") {
  Rng rng(1);
  const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> host =
      Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>::Random(13, 11);
  const auto layer = mola({}, DenseBase{host}, rng, Reference{});
  CHECK(layer.base().weight().data() == host.data());
}

TEST_CASE("MoLA stands on any base, and is the same on each", "[method]") {
  const auto host = support::random_matrix<float>(13, 11, 1), tokens = support::random_matrix<float>(5, 11, 2);
  const auto output_on = [&](auto base) {
    Rng rng(3);
    const auto layer = support::with_random_b(mola({.rank = 3}, base, rng, Reference{}));
    auto work = layer.workspace(5);
    Matrix<float> y(5, 13);
    layer.forward(tokens, y, work);
    return y;
  };
  CHECK(support::same_bits(output_on(DenseBase(host.view())), output_on(PackedBase(host))));
  CHECK(support::largest_difference(output_on(DenseBase(host.view())), output_on(Bf16Base(host))) < 0.1);
}

TEST_CASE("A layer of MoLA with one expert is a plain LoRA to the bit", "[method]") {
  Rng rng(1);
  auto layer = support::with_random_b(
      mola({.experts = 1, .rank = 4, .k = 1, .alpha = 8, .dropout = 0}, DenseBase{weight, bias}, rng));
  auto plain = lora({.rank = 4, .alpha = 8}, DenseBase{weight, bias}, rng);
  plain.experts().parameters() = layer.experts().parameters();
  const auto x = support::random_matrix<double>(9, 11, 3);
  CHECK(support::same_bits(support::output(layer, x), support::output(plain, x)));
}

TEST_CASE("Even routing costs MoLA its coefficient in each layer, whatever the experts", "[method]") {
  double loss = 0;
  const auto allocation = mola_allocation(MolaShape::inverted_triangle, 8);
  for (int experts : allocation) {
    Rng rng(1);
    auto layer = mola({.experts = experts, .rank = 2, .k = 2, .dropout = 0}, DenseBase{weight}, rng);
    layer.router().parameters().weight.set_zero();  // every expert is as probable as any other
    auto work = layer.workspace(8);
    layer.route(support::random_matrix<double>(8, 11, 3), work);
    loss += load_balance(work, {.coefficient = 0.001});
  }
  CHECK(std::abs(loss - 0.001 * double(allocation.size())) < 1e-15);
}
