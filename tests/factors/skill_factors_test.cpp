// SPDX-License-Identifier: MIT
#include "mole/factors/skill_factors.hpp"

#include "core/error_code.hpp"
#include "factors/adapter_checks.hpp"
#include "support/catch.hpp"

#include <cmath>
#include <limits>

using namespace mole;
using namespace factor_checks;

namespace {

struct SkillSizes {
  Index tasks = 3, skills = 2, splits = 1, in = factor_checks::in, out = factor_checks::out;
  bool normalized = true, relaxed = true;
  double temperature = 1;
};

auto of_skills(const SkillSizes& sizes) {
  Rng rng(1);
  LowRank<SkillFactors<double>> made({.in = sizes.in,
                                      .out = sizes.out,
                                      .experts = sizes.tasks,
                                      .rank = 3,
                                      .skills = sizes.skills,
                                      .splits = sizes.splits,
                                      .normalized = sizes.normalized,
                                      .relaxed = sizes.relaxed,
                                      .temperature = sizes.temperature,
                                      .alpha = 6},
                                     rng);
  return made.with(randomized(made.factors()));
}

}  // namespace

TEST_CASE("SkillFactors mix A and B of skills by the shares of their sigmoids, each split by its own", "[factors]") {
  for (bool normalized : {false, true}) {
    const auto experts = of_skills({.splits = 2, .in = 4, .out = 6, .normalized = normalized});
    const auto& p = experts.parameters();
    for (Index k = 0; k < 3; ++k) {
      const auto weight = [&](Index split, Index skill) {
        const auto u = [&](Index s) { return 1 / (1 + std::exp(-p.skill_logits(k, 2 * split + s))); };
        return normalized ? u(skill) / (u(0) + u(1)) : u(skill);
      };
      Matrix<double> delta(6, 4);
      experts.add_delta(k, 0.5, delta.view());
      for (Index o = 0; o < 6; ++o)
        for (Index i = 0; i < 4; ++i) {
          double sum = 0;
          for (Index j = 0; j < 3; ++j) {
            double a = 0, b = 0;
            for (Index s = 0; s < 2; ++s) {
              a += weight(i / 2, s) * p.lora_A(3 * s + j, i);
              b += weight(o / 3, s) * p.lora_B(3 * s + j, o);
            }
            sum += b * a;
          }
          CHECK(std::abs(delta(o, i) - 0.5 * 2 * sum) < 1e-11);  // 1e-12 is in the divisor
        }
    }
  }
}

TEST_CASE("SkillFactors keep the laws of factors, and have exact gradients", "[factors]") {
  for (Index tasks : {1, 3})
    for (Index skills : {1, 4})
      for (bool normalized : {false, true}) {
        CAPTURE(tasks, skills, normalized);
        CHECK(broken(of_skills({.tasks = tasks, .skills = skills, .normalized = normalized})) == "");
      }
  CHECK(broken(of_skills({.splits = 1, .temperature = 0.5})) == "");
}

TEST_CASE("Splits have exact gradients, and so have weights that are relaxed in training", "[factors]") {
  for (bool normalized : {false, true}) {
    const auto experts = of_skills({.splits = 2, .in = 4, .out = 6, .normalized = normalized, .temperature = 0.7});
    CHECK(laws::broken_factor_law<Reference>(experts.factors()) == "");
    Rng rng(2);
    MixtureLinear layer(LinearRouter<double>({.in = 4, .experts = 3}, rng), support::top_2(), experts,
                        DenseBase(support::random_matrix<double>(6, 4, 6)), Simd<>{});
    const GradientReport report = check_gradients(layer, {.pass = {.training = true, .seed = 4}});
    INFO(report.worst_tensor);
    CHECK(report.worst < 1e-7);
  }
}

TEST_CASE("Relaxed weights are noise around the sigmoid in training, one draw for a task", "[factors]") {
  auto experts = of_skills({.tasks = 3000, .skills = 2, .normalized = false});
  fill(experts.parameters().skill_logits.view(), 1.0);
  laws::Harness<SkillFactors<double>> harness(experts.factors(), 1, 0, {.training = true, .seed = 3});
  experts.factors().prepare(harness.call());
  double above = 0, same = 0;
  for (Index k = 0; k < 3000; ++k) {
    above += harness.scratch().weights(k, 0) > 0.5;
    same += harness.scratch().weights(k, 0) == harness.scratch().weights(k, 1);
  }
  CHECK(std::abs(above / 3000 - 1 / (1 + std::exp(-1.0))) < 0.03);  // a relaxed Bernoulli variable
  CHECK(same == 0);
  const double first = harness.scratch().weights(7, 1);
  harness.pass.first_token = 90;
  experts.factors().prepare(harness.call());
  CHECK(harness.scratch().weights(7, 1) == first);
  harness.pass.step = 1;
  experts.factors().prepare(harness.call());
  CHECK(harness.scratch().weights(7, 1) != first);
  harness.pass.training = false;
  experts.factors().prepare(harness.call());
  CHECK(std::abs(harness.scratch().weights(7, 1) - 1 / (1 + std::exp(-1.0))) < 1e-15);
  const auto plain = of_skills({.relaxed = false});
  laws::Harness<SkillFactors<double>> in_training(plain.factors(), 1, 0, {.training = true}),
      otherwise(plain.factors(), 1);
  plain.factors().prepare(in_training.call());
  plain.factors().prepare(otherwise.call());
  CHECK(support::same_bits(in_training.scratch().weights, otherwise.scratch().weights));
}

TEST_CASE("Fresh SkillFactors leave the base as it is; one skill is one LoRA for all tasks", "[factors]") {
  Rng rng(1);
  LowRank<SkillFactors<double>> experts({.in = in, .out = out, .experts = 2, .rank = 3, .skills = 1, .alpha = 6}, rng);
  Matrix<double> delta(out, in), other(out, in);
  experts.add_delta(1, 1, delta.view());
  CHECK(support::same_bits(delta, Matrix<double>(out, in)));
  fill_uniform(experts.parameters().lora_B.view(), 1, rng);
  const LowRank plain(
      DenseFactors<double>(RankBlocks::uniform(1, 3), {experts.parameters().lora_A, experts.parameters().lora_B}),
      {2.0});
  experts.add_delta(1, 1, delta.view());
  plain.add_delta(0, 1, other.view());
  CHECK(support::largest_difference(delta, other) < 1e-11);
}

TEST_CASE("A task that serves no token has no gradient, whatever its logits are", "[factors]") {
  auto experts = of_skills({});
  experts.parameters().skill_logits(1, 0) = std::numeric_limits<double>::quiet_NaN();
  ExpertLinear layer(experts, DenseBase(support::random_matrix<double>(out, in, 6)), Simd<>{});
  const auto x = support::random_matrix<double>(4, in, 3), d_y = support::random_matrix<double>(4, out, 4);
  const auto routing = Routing<double>::from_labels(std::vector<int>{0, 2, -1, 2}, 3);
  auto work = layer.workspace(4);
  auto gradients = layer.gradients();
  Matrix<double> y(4, out), d_x(4, in);
  layer.apply(x, routing, y, work);
  layer.apply_backward(x, routing, d_y, {}, d_x, gradients, work);
  CHECK(gradients.experts.skill_logits(1, 0) == 0);
  CHECK(gradients.experts.skill_logits(2, 0) != 0);
  for (const Matrix<double>* gradient : {&gradients.experts.lora_A, &gradients.experts.lora_B, &d_x})
    CHECK(support::all_finite(gradient->elements()));
}

TEST_CASE("SkillFactors refuse sizes and temperatures out of range, and parameters that do not fit", "[factors]") {
  Rng rng;
  using Factors = SkillFactors<double>;
  const auto code = [&](const Factors::Options& options) { return test::code_of([&] { Factors(options, rng); }); };
  CHECK(code({.in = 0, .out = 3}) == ErrorCode::option);
  CHECK(code({.in = 3, .out = 3, .rank = 0}) == ErrorCode::option);
  CHECK(code({.in = 3, .out = 3, .skills = 0}) == ErrorCode::option);
  CHECK(code({.in = 4, .out = 3, .splits = 2}) == ErrorCode::option);
  CHECK(code({.in = 3, .out = 4, .splits = 2}) == ErrorCode::option);
  for (double temperature : {0.0, -1.0, 1e300, std::nan("")})
    CHECK(code({.in = 3, .out = 3, .temperature = temperature}) == ErrorCode::option);
  Factors factors({.in = 4, .out = 4, .rank = 2}, rng);
  factors.parameters().skill_logits = Matrix<double>(1, 3);
  CHECK(test::code_of([&] { factors.check_sizes(); }) == ErrorCode::shape);
}

TEST_CASE("SkillFactors have the numbers that they say", "[factors]") {
  Rng rng;
  const SkillFactors<float> factors({.in = 4096, .out = 4096, .experts = 8}, rng);
  CHECK(numbers_in(factors.parameters()) == 262'176);
}
