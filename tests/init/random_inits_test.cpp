// SPDX-License-Identifier: MIT
#include "init/init_checks.hpp"
#include "mole/init/gaussian.hpp"
#include "mole/init/orthogonal.hpp"
#include "mole/factors/task_factors.hpp"
#include "mole/init/corda.hpp"
#include "mole/init/goat.hpp"
#include "mole/init/loftq.hpp"
#include "mole/init/lora_ga.hpp"
#include "mole/init/mica.hpp"
#include "mole/init/olora.hpp"
#include "mole/init/pissa.hpp"

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

TEST_CASE("Factors whose A and B have no row for each rank are refused before anything is written", "[init]") {
  Rng rng(5);
  LowRank<TaskFactors<double>> tasks({.in = in, .out = out, .experts = 4, .rank = 2}, rng);
  const auto refused = [&](auto initialize) {
    const Matrix<double> a = tasks.parameters().lora_A, b = tasks.parameters().lora_B;
    CHECK(test::code_of([&] { initialize(); }) == ErrorCode::shape);
    CHECK(support::same_bits(tasks.parameters().lora_A, a));
    CHECK(support::same_bits(tasks.parameters().lora_B, b));
  };
  refused([&] { gaussian_init(tasks, rng); });
  refused([&] { orthogonal_init(tasks, rng); });
  refused([&] { pissa_init(tasks, weight, {}, {.expert = 3}); });
  refused([&] { olora_init(tasks, weight, {}, 3); });
  refused([&] { mica_init(tasks, weight, 3); });
  refused([&] { goat_init(tasks, weight, {}); });
  refused([&] { lora_ga_init(tasks, weight, weight, {}, {.expert = 3}); });
  refused([&] { corda_init(tasks, weight, Matrix<double>(in, in), {}, {.expert = 3}); });
  Matrix<double> coded(out, in);
  refused([&] { loftq_init(tasks, weight, coded.view(), [](View<const double>, View<double>) {}, {.expert = 3}); });
}
