// SPDX-License-Identifier: MIT
// The preset is the composition that it says; what it computes is pinned by the golden test.
#include "mole/method/deepseek_v3.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("deepseek_v3 chooses with its bias and weighs without", "[method]") {
  Rng rng(1);
  const DeepseekV3Options options{.experts = 9, .shared = 1, .rank = 2, .k = 3, .groups = 4, .kept_groups = 2};
  auto layer = deepseek_v3(options, DenseBase{weight, bias}, rng);
  CHECK(layer.gating().select.bias == std::vector<double>(8));
  CHECK(gradient_error(layer) < 1e-7);
  layer.gating().select.bias[5] = 10;  // everybody has it now
  auto work = layer.workspace(6);
  layer.route(support::random_matrix<double>(6, 11, 3), work);
  CHECK(work.routing.load(5) == 6);
  for (Index n = 0; n < 6; ++n) {
    double sum = 0;
    for (std::size_t j = 0; j < 3; ++j) sum += work.routing.gates_of(n)[j];
    CHECK(std::abs(sum - 2.5) < 1e-12);
  }
}

TEST_CASE("deepseek_v3's bias has no gradient, and the same added to all changes no bit", "[method]") {
  Rng rng(1);
  auto layer = support::with_random_b(deepseek_v3(
      {.experts = 9, .shared = 1, .rank = 2, .k = 3, .groups = 4, .kept_groups = 2}, DenseBase{weight, bias}, rng));
  auto gradients = layer.gradients({.router = true, .experts = true});
  layer.for_each_tensor([](std::string_view name, auto, auto) { CHECK(name.find("gating") == std::string_view::npos); },
                        gradients);
  const auto x = support::random_matrix<double>(9, 11, 3);
  const auto before = support::output(layer, x);
  for (double& one : layer.gating().select.bias) one += 0.25;
  CHECK(support::same_bits(before, support::output(layer, x)));
}
