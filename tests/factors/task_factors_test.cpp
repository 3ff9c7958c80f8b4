// SPDX-License-Identifier: MIT
#include "mole/factors/task_factors.hpp"

#include "core/error_code.hpp"
#include "factors/adapter_checks.hpp"
#include "support/catch.hpp"

#include <cmath>

using namespace mole;
using namespace factor_checks;

namespace {

template <class T>
auto of_tasks(Index tasks, Index up_matrices, bool diagonal) {
  Rng rng(1);
  LowRank<TaskFactors<T>> made({.in = in,
                                .out = out,
                                .experts = tasks,
                                .rank = 3,
                                .up_matrices = up_matrices,
                                .temperature = 0.5,
                                .diagonal = diagonal,
                                .alpha = 6},
                               rng);
  return made.with(randomized(made.factors()));
}

}  // namespace

TEST_CASE("TaskFactors join one A and mixed B by a matrix of the task", "[factors]") {
  for (bool diagonal : {false, true}) {
    const auto experts = of_tasks<double>(3, 2, diagonal);
    const auto& p = experts.parameters();
    for (Index k = 0; k < 3; ++k) {
      Matrix<double> delta(out, in);
      experts.add_delta(k, 0.5, delta.view());
      const double first = 1 / (1 + std::exp((p.lora_B_weights(k, 1) - p.lora_B_weights(k, 0)) / 0.5));
      for (Index o = 0; o < out; ++o)
        for (Index i = 0; i < in; ++i) {
          double sum = 0;
          for (Index j = 0; j < 3; ++j)
            for (Index l = 0; l < 3; ++l) {
              const double lambda = diagonal ? (j == l) * p.lora_lambda(k, j) : p.lora_lambda(3 * k + j, l);
              sum += (first * p.lora_B(j, o) + (1 - first) * p.lora_B(3 + j, o)) * lambda * p.lora_A(l, i);
            }
          CHECK(std::abs(delta(o, i) - 0.5 * 2 * sum) < 1e-13);
        }
    }
  }
}

TEST_CASE("TaskFactors keep the laws of factors, and have exact gradients", "[factors]") {
  for (Index tasks : {1, 3})
    for (Index up_matrices : {1, 3})
      for (bool diagonal : {false, true}) {
        CAPTURE(tasks, up_matrices, diagonal);
        CHECK(broken(of_tasks<double>(tasks, up_matrices, diagonal)) == "");
      }
}

TEST_CASE("Fresh TaskFactors of one B leave the base as it is; with its B they are one LoRA for all, to the bit",
          "[factors]") {
  for (bool diagonal : {false, true}) {
    Rng rng(1);
    LowRank<TaskFactors<float>> experts(
        {.in = in, .out = out, .experts = 2, .rank = 3, .up_matrices = 1, .diagonal = diagonal, .alpha = 6}, rng);
    Matrix<float> delta(out, in), other(out, in);
    experts.add_delta(1, 1, delta.view());
    CHECK(support::same_bits(delta, Matrix<float>(out, in)));
    fill_uniform(experts.parameters().lora_B.view(), 1, rng);
    const LowRank plain(
        DenseFactors<float>(RankBlocks::uniform(1, 3), {experts.parameters().lora_A, experts.parameters().lora_B}),
        {2.0f});
    experts.add_delta(1, 1, delta.view());
    plain.add_delta(0, 1, other.view());
    CHECK(support::same_bits(delta, other));
  }
}

TEST_CASE("Tasks that serve no token have no gradient", "[factors]") {
  const auto experts = of_tasks<double>(3, 2, false);
  ExpertLinear layer(experts, DenseBase(support::random_matrix<double>(out, in, 6)), Simd<>{});
  const auto x = support::random_matrix<double>(4, in, 3), d_y = support::random_matrix<double>(4, out, 4);
  const auto routing = Routing<double>::from_labels(std::vector<int>{0, 2, -1, 2}, 3);
  auto work = layer.workspace(4);
  auto gradients = layer.gradients();
  Matrix<double> y(4, out), d_x(4, in);
  layer.apply(x, routing, y, work);
  layer.apply_backward(x, routing, d_y, {}, d_x, gradients, work);
  for (Index l = 0; l < 3; ++l)
    for (Index j = 3; j < 6; ++j) CHECK(gradients.experts.lora_lambda(j, l) == 0);
  CHECK(gradients.experts.lora_B_weights(1, 0) == 0);
  CHECK(gradients.experts.lora_B_weights(2, 0) != 0);
}

TEST_CASE("TaskFactors refuse sizes that are none, no temperature, and parameters that do not fit", "[factors]") {
  Rng rng;
  using Factors = TaskFactors<double>;
  const auto code = [&](Factors::Options options) { return test::code_of([&] { Factors(options, rng); }); };
  CHECK(code({.in = 0, .out = 3}) == ErrorCode::option);
  CHECK(code({.in = 3, .out = 3, .rank = 0}) == ErrorCode::option);
  CHECK(code({.in = 3, .out = 3, .up_matrices = 0}) == ErrorCode::option);
  for (double temperature : {0.0, -1.0, 1e-46, 1e300, std::nan("")})
    CHECK(code({.in = 3, .out = 3, .temperature = temperature}) == ErrorCode::option);
  Factors factors({.in = 3, .out = 4, .rank = 2}, rng);
  factors.parameters().lora_lambda = Matrix<double>(1, 2);
  CHECK(test::code_of([&] { factors.check_sizes(); }) == ErrorCode::shape);
}

TEST_CASE("TaskFactors have the numbers that they say", "[factors]") {
  Rng rng;
  const TaskFactors<float> factors({.in = 4096, .out = 4096, .experts = 8}, rng);
  CHECK(numbers_in(factors.parameters()) == 131'608);
}
