// SPDX-License-Identifier: MIT
#include "mole/init/gaussian.hpp"

#include "init/init_checks.hpp"

using namespace mole;
using namespace init_checks;

TEST_CASE("gaussian has a standard deviation of 1/r, and B is 0", "[init]") {
  Rng rng(5);
  LowRank<DenseFactors<double>> experts({.in = 4000, .out = 3, .experts = 2, .ranks = {4, 2}}, rng);
  fill(experts.parameters().lora_B.view(), 1.0);
  gaussian_init(experts, rng);
  for (Index e = 0; e < 2; ++e) {
    double sum = 0, squares = 0;
    const Index ranks = experts.blocks().size(e);
    for (Index j = experts.blocks().down(e); j < experts.blocks().down(e) + ranks; ++j)
      for (double a : experts.parameters().lora_A.view().row(j)) sum += a, squares += a * a;
    CHECK(std::abs(sum / double(ranks * 4000)) < 0.05 / double(ranks));
    CHECK(std::sqrt(squares / double(ranks * 4000)) == Approx(1 / double(ranks)).epsilon(0.03));
  }
  CHECK(support::same_bits(experts.parameters().lora_B, Matrix<double>(6, 3)));
}
