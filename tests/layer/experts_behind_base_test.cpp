// SPDX-License-Identifier: MIT
#include "mole/layer/experts_behind_base.hpp"

#include "core/error_code.hpp"
#include "mole/execution/thread_pool.hpp"
#include "mole/mole.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;

namespace {

constexpr Index behind_in = 5, behind_out = 7;

auto behind_experts() {
  Rng rng(1);
  LowRank<DenseFactors<double>> experts({.in = behind_out, .out = behind_out, .experts = 3, .rank = 2, .alpha = 3},
                                        rng);
  fill_uniform(experts.parameters().lora_B.view(), 1, rng);
  return experts;
}

template <class Base, class Execution = Simd<>>
auto layer_behind(Base base, bool keeps_base, Execution execution = {}) {
  Rng rng(5);
  return MixtureLinear(LinearRouter<double>({.in = behind_in, .experts = 3}, rng), support::top_2(),
                       ExpertsBehindBase(std::move(base), behind_experts(), keeps_base),
                       NoBase<double>(behind_in, behind_out), std::move(execution));
}

const auto behind_weight = support::random_matrix<double>(behind_out, behind_in, 6);

}  // namespace

TEST_CASE("Experts behind a base read what the base makes, and may leave it in the result", "[layer]") {
  for (bool keeps_base : {false, true})
    for (Index tokens : {0, 1, 9}) {
      const auto layer = layer_behind(DenseBase(behind_weight), keeps_base);
      const auto x = support::random_matrix<double>(tokens, behind_in, 2);
      Matrix<double> y(tokens, behind_out), u(tokens, behind_out);
      auto work = layer.workspace(tokens);
      layer.forward(x, y, work);
      for (Index n = 0; n < tokens; ++n)
        for (Index o = 0; o < behind_out; ++o)
          for (Index i = 0; i < behind_in; ++i) u(n, o) += behind_weight(o, i) * x(n, i);
      for (Index n = 0; n < tokens; ++n) {
        Matrix<double> delta(behind_out, behind_out);
        for (Index p = work.routing.first_pair(n); p < work.routing.first_pair(n + 1); ++p)
          layer.experts().behind().add_delta(work.routing.expert(p), work.routing.gate(p), delta.view());
        for (Index o = 0; o < behind_out; ++o) {
          double expected = keeps_base ? u(n, o) : 0;
          for (Index i = 0; i < behind_out; ++i) expected += delta(o, i) * u(n, i);
          CHECK(std::abs(y(n, o) - expected) < 1e-12);
        }
      }
    }
}

TEST_CASE("Experts behind a base have exact gradients, those of a base that is trained too", "[layer]") {
  for (bool keeps_base : {false, true}) {
    auto frozen = layer_behind(DenseBase(behind_weight), keeps_base);
    CHECK(check_gradients(frozen).passed(1e-8));
    auto trained = layer_behind(DenseBase(Matrix<double>(behind_weight)), keeps_base, Reference{});
    CHECK(check_gradients(trained).passed(1e-8));
    std::vector<std::string> names;
    trained.for_each_tensor([&](std::string_view name, View<double>) { names.emplace_back(name); });
    CHECK(names == std::vector<std::string>{"router.weight", "experts.base.weight", "experts.experts.lora_A",
                                            "experts.experts.lora_B"});
  }
}

TEST_CASE("Without a d_x, a base behind which experts stand still gets its gradient", "[layer]") {
  const auto layer = layer_behind(DenseBase(Matrix<double>(behind_weight)), true);
  const auto x = support::random_matrix<double>(9, behind_in, 2),
             d_y = support::random_matrix<double>(9, behind_out, 3);
  const auto backward = [&](bool wants_d_x, auto execution) {
    const auto own = layer_behind(DenseBase(Matrix<double>(behind_weight)), true, execution);
    auto work = own.workspace(9);
    auto gradients = own.gradients();
    Matrix<double> y(9, behind_out), d_x(9, behind_in);
    own.forward(x, y, work);
    own.backward(x, d_y, wants_d_x ? d_x.view() : View<double>(), gradients, work);
    return gradients;
  };
  const auto with = backward(true, Simd<>{}), without = backward(false, Simd<>{}),
             threaded = backward(true, Simd(ThreadPool(3)));
  for (const auto* other : {&without, &threaded}) {
    CHECK(support::same_bits(with.experts.base.weight, other->experts.base.weight));
    CHECK(support::same_bits(with.experts.experts.lora_A, other->experts.experts.lora_A));
    CHECK(support::same_bits(with.router.weight, other->router.weight));
  }
}

TEST_CASE("A token that is not routed gets the base that is kept, or nothing", "[layer]") {
  const auto x = support::random_matrix<double>(3, behind_in, 2);
  const std::uint8_t routed[] = {1, 0, 1};
  for (bool keeps_base : {false, true}) {
    const auto y = support::output(layer_behind(DenseBase(behind_weight), keeps_base), x, {.routed = routed});
    for (Index o = 0; o < behind_out; ++o) {
      double u = 0;
      for (Index i = 0; i < behind_in; ++i) u += behind_weight(o, i) * x(1, i);
      CHECK(std::abs(y(1, o) - (keeps_base ? u : 0)) < 1e-14);
    }
  }
}

TEST_CASE("Experts that do not fit the base before them are refused", "[layer]") {
  CHECK(test::code_of([] { ExpertsBehindBase(DenseBase(Matrix<double>(behind_in, behind_in)), behind_experts()); }) ==
        ErrorCode::shape);
  Rng rng;
  const LowRank<DenseFactors<double>> narrow({.in = behind_out, .out = 2, .rank = 1, .alpha = 1}, rng);
  CHECK_NOTHROW(ExpertsBehindBase(DenseBase(behind_weight), narrow));
  CHECK(test::code_of([&] { ExpertsBehindBase(DenseBase(behind_weight), narrow, true); }) == ErrorCode::shape);
}
