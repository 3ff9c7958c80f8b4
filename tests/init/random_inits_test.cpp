// SPDX-License-Identifier: MIT
#include "init/init_checks.hpp"
#include "mole/init/gaussian.hpp"
#include "mole/init/orthogonal.hpp"

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

TEST_CASE("orthogonal's A and B are not 0, and their product is", "[init]") {
  Rng rng(5);
  auto experts = experts_of(6, 6, 2);
  orthogonal_init(experts, rng);
  for (Index e = 0; e < 2; ++e) {
    Matrix<double> delta(out, in);
    experts.add_delta(e, 1, delta.view());
    CHECK(norm(delta) < 1e-15);
  }
  CHECK(norm(experts.parameters().lora_A) > 0.3);
  CHECK(norm(experts.parameters().lora_B) > 0.3);
  auto odd = experts_of(3);
  CHECK(test::code_of([&] { orthogonal_init(odd, rng); }) == ErrorCode::option);
}
