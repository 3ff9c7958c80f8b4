// SPDX-License-Identifier: MIT
// Each preset is the composition that it says; what it computes is pinned by the golden test.
#include "mole/layer/check_gradients.hpp"
#include "mole/method/llava_mole.hpp"
#include "mole/method/lora.hpp"
#include "mole/method/loramoe.hpp"
#include "mole/method/mola.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <Eigen/Core>

using namespace mole;

namespace {
const Matrix<double> weight = support::random_matrix<double>(13, 11, 1),
                     bias = support::random_matrix<double>(1, 13, 2);

template <class Layer>
double gradient_error(Layer layer) {
  layer = support::with_random_b(std::move(layer));
  return check_gradients(layer, {.batch = {.training = true}}).worst;
}
}  // namespace

TEST_CASE("lora scales by alpha over rank, or over its root", "[method]") {
  Rng rng(1);
  CHECK(lora<double>({.in = 11, .out = 13, .rank = 4, .alpha = 8}, weight, rng).experts().scale()[0] == 2);
  CHECK(
      lora<double>({.in = 11, .out = 13, .rank = 4, .alpha = 8, .scaling = Scaling::alpha_over_sqrt_rank}, weight, rng)
          .experts()
          .scale()[0] == 4);
  CHECK(lora<double>({.in = 11, .out = 13}, weight, rng).merge_obstacle().empty());
  CHECK(gradient_error(lora<double>({.in = 11, .out = 13, .dropout = 0.2}, weight, rng, bias)) < 1e-8);
}

TEST_CASE("mola keeps k of its experts and renormalises", "[method]") {
  Rng rng(1);
  auto layer = mola<double>({.in = 11, .out = 13, .experts = 6, .rank = 2, .k = 3}, weight, rng, bias);
  CHECK(layer.experts().experts() == 6);
  CHECK(layer.gating().select.k == 3);
  CHECK(layer.base().weight().data() == weight.data());
  CHECK(gradient_error(layer) < 1e-8);
}

TEST_CASE("loramoe mixes all, with a shared down-projection if wanted", "[method]") {
  Rng rng(1);
  CHECK(gradient_error(loramoe<double>({.in = 11, .out = 13}, weight, rng)) < 1e-8);
  auto hydra = loramoe<double>({.in = 11, .out = 13, .experts = 3, .rank = 4, .shared_down = true}, weight, rng);
  CHECK(hydra.experts().parameters().lora_A.rows() == 4);
  CHECK(gradient_error(hydra) < 1e-8);
}

TEST_CASE("llava_mole adds one whole expert, whatever the size of the logits", "[method]") {
  Rng rng(1);
  auto layer = support::with_random_b(llava_mole<double>({.in = 11, .out = 13, .rank = 4}, weight, rng));
  const auto x = support::random_matrix<double>(9, 11, 3);
  Matrix<double> y(9, 13), larger(9, 13);
  auto work = layer.workspace(9);
  layer.forward(x, y, work);
  CHECK(work.routing.pairs() == 9);
  for (double w : work.routing.weights()) CHECK(w == 1);
  for (double& w : layer.router().parameters().weight.elements()) w *= 3;
  for (double& b : layer.router().parameters().bias.elements()) b *= 3;
  layer.forward(x, larger, work);
  CHECK(support::same_bits(y, larger));
}

TEST_CASE("A preset takes the host's Eigen matrix and an execution of choice", "[method]") {
  Rng rng(1);
  const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> host =
      Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>::Random(13, 11);
  const auto layer = mola<float>({.in = 11, .out = 13}, host, rng, {}, Reference{});
  CHECK(layer.base().weight().data() == host.data());
}
