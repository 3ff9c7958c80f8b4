// SPDX-License-Identifier: MIT
#include "mole/init/lora_experts.hpp"

#include "init/init_checks.hpp"
#include "mole/factors/task_factors.hpp"
#include "mole/init/corda.hpp"
#include "mole/init/gaussian.hpp"
#include "mole/init/goat.hpp"
#include "mole/init/loftq.hpp"
#include "mole/init/lora_ga.hpp"
#include "mole/init/mica.hpp"
#include "mole/init/olora.hpp"
#include "mole/init/orthogonal.hpp"
#include "mole/init/pissa.hpp"

using namespace mole;
using namespace init_checks;

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

TEST_CASE("Ranks are written where their expert's blocks are, and nowhere else", "[init]") {
  Rng rng(5);
  LowRank<DenseFactors<double>> experts({.in = in, .out = out, .experts = 3, .ranks = {2, 1, 3}}, rng);
  const Matrix<double> before = experts.parameters().lora_A;
  const auto a = support::random_matrix<double>(in, 4, 1), b = support::random_matrix<double>(out, 4, 2);
  detail::set_rank(experts, 2, 1, a, 3, 2, b, 1, -1);  // rank 1 of expert 2 is row 4
  for (Index row = 0; row < 6; ++row) {
    for (Index i = 0; i < in; ++i)
      CHECK(experts.parameters().lora_A(row, i) == (row == 4 ? 2 * a(i, 3) : before(row, i)));
    for (Index o = 0; o < out; ++o) CHECK(experts.parameters().lora_B(row, o) == (row == 4 ? -b(o, 1) : 0));
  }
  detail::set_rank_to_zero(experts, 2, 1);
  for (double element : experts.parameters().lora_A.view().row(4)) CHECK(element == 0);
}

TEST_CASE("A residual is the weight without the share of the experts that are asked for", "[init]") {
  auto experts = experts_of(2, 6, 3);
  Rng rng(5);
  fill_uniform(experts.parameters().lora_B.view(), 1, rng);
  Matrix<double> residual(out, in), in_place = weight;
  detail::write_residual(experts, 1, 3, 0.5, weight.view(), residual.view());
  detail::write_residual(experts, 1, 3, 0.5, in_place.view(), in_place.view());
  CHECK(support::same_bits(residual, in_place));
  for (Index e : {1, 2}) experts.add_delta(e, 0.5, residual.view());
  CHECK(support::largest_difference(residual, weight) < 1e-14);
}
