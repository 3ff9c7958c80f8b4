// SPDX-License-Identifier: MIT
#include "mole/factors/growing_bank.hpp"

#include "core/error_code.hpp"
#include "mole/execution/through_eigen.hpp"
#include "mole/testing/expert_laws.hpp"
#include "mole/testing/factor_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"
#include "support/sanitizers.hpp"
#include "support/tolerance.hpp"

using namespace mole;
using namespace mole::test;

namespace {

template <class T>
LowRank<GrowingBank<T>> grown_experts(double dropout = 0) {
  Rng rng(5);
  LowRank<GrowingBank<T>> experts(
      {.in = 11, .out = 13, .ranks = {4}, .alpha = 2, .dropout = {.rate = dropout, .stream = 1}}, rng);
  for (auto [ranks, scale] : {std::pair<Index, double>{3, 0.5}, {5, 1.5}}) {
    fill_uniform(experts.parameters().lora_B.view(), 1, rng);
    experts.append(ranks, rng, scale);
  }
  fill_uniform(experts.parameters().lora_B.view(), 1, rng);
  return experts;
}

template <class T>
Matrix<T> copied(View<const T> view) {
  Matrix<T> matrix(view.rows(), view.cols());
  for (Index r = 0; r < view.rows(); ++r) std::copy_n(view.row_data(r), view.cols(), matrix.view().row_data(r));
  return matrix;
}

template <class T>
FactorViews<const T> tables(const LowRank<GrowingBank<T>>& experts) {
  NoScratch none;
  return experts.factors().factors(none);
}

/// The same atoms, all of them trained.
template <class T>
LowRank<DenseFactors<T>> all_trained(const LowRank<GrowingBank<T>>& experts, double dropout = 0) {
  const auto t = tables(experts);
  return {DenseFactors<T>(experts.blocks(), {copied(t.a), copied(t.b)}),
          {experts.scale().begin(), experts.scale().end()},
          {.rate = dropout, .stream = 1}};
}

template <class Experts, class Execution>
auto self_routed(const Experts& experts, Execution execution, bool all) {
  using T = typename Experts::Scalar;
  return MixtureLinear(LatentRouter<T>(experts.experts()),
                       Gate{Sigmoid{}, TopK{.k = all ? experts.experts() : 7}, Raw{}}, experts,
                       DenseBase(support::random_matrix<T>(13, 11, 6)), execution);
}

}  // namespace

TEST_CASE("A bank grows by atoms with a uniform A and a B of zeros, and keeps the others", "[factors]") {
  Rng rng(1);
  GrowingBank<double> bank({.in = 100, .out = 7, .ranks = {3, 5}}, rng);
  CHECK(bank.blocks().experts() == 8);
  CHECK(bank.blocks().max_size() == 1);
  CHECK(bank.frozen() == 3);
  CHECK(bank.ranges() == std::vector<int>{3, 5});
  CHECK(bank.parameters().lora_A.view().rows() == 5);
  fill_uniform(bank.parameters().lora_B.view(), 1, rng);
  NoScratch none;
  const auto a = copied(bank.factors(none).a), b = copied(bank.factors(none).b);
  bank.append(20, rng);
  const auto now = bank.factors(none);
  CHECK(now.a.rows() == 28);
  CHECK(bank.frozen() == 8);
  CHECK(support::same_bits(now.a.top(8), a.view()));
  CHECK(support::same_bits(now.b.top(8), b.view()));
  const Matrix<double> zeros(20, 7);
  CHECK(support::same_bits(now.b.middle_rows(8, 20), zeros.view()));
  double most = 0;
  for (Index j = 8; j < 28; ++j)
    for (double element : now.a.row(j)) most = std::max(most, std::abs(element));
  CHECK(most <= 0.1);
  CHECK(most > 0.099);
  CHECK(bank.parameters().lora_A.view().data() == now.a.row_data(8));
}

TEST_CASE("A bank refuses sizes out of range", "[factors]") {
  Rng rng(3);
  using Bank = GrowingBank<float>;
  CHECK_THROWS_AS(Bank({.in = 0, .out = 6}, rng), Error);
  CHECK_THROWS_AS(Bank({.in = 5, .out = 0}, rng), Error);
  CHECK_THROWS_AS(Bank({.in = 5, .out = 6, .ranks = {}}, rng), Error);
  CHECK_THROWS_AS(Bank({.in = 5, .out = 6, .ranks = {3, 0}}, rng), Error);
  Bank bank({.in = 5, .out = 6}, rng);
  CHECK_THROWS_AS(bank.append(0, rng), Error);
  CHECK(bank.blocks().experts() == 16);
}

TEST_CASE("Each range of a bank has its scale", "[factors]") {
  const auto experts = grown_experts<double>();
  const std::vector<double> scale(experts.scale().begin(), experts.scale().end());
  CHECK(scale == std::vector<double>{2, 2, 2, 2, 0.5, 0.5, 0.5, 1.5, 1.5, 1.5, 1.5, 1.5});
}

TEMPLATE_TEST_CASE("A bank keeps the laws of experts", "[factors]", float, double) {
  CHECK(laws::broken_expert_law(grown_experts<TestType>()) == "");
}

TEMPLATE_TEST_CASE("A bank computes what factors without frozen rows do, and the last rows of their gradients",
                   "[factors]", Reference, Simd<>, Simd<kernel::Scalar>, ThroughEigen) {
  using T = float;
  for (bool all : {false, true})
    for (double dropout : {0.0, 0.2}) {
      const auto experts = grown_experts<T>(dropout);
      const auto bank = self_routed(experts, TestType{}, all);
      const auto plain = self_routed(all_trained(experts, dropout), TestType{}, all);
      const Index tokens = 37;
      const auto x = support::random_matrix<T>(tokens, 11, 1), d_y = support::random_matrix<T>(tokens, 13, 2);
      Matrix<T> y(tokens, 13), d_x(tokens, 11), plain_y(tokens, 13), plain_d_x(tokens, 11);
      const auto run = [&](const auto& layer, Matrix<T>& out, Matrix<T>& d_in) {
        auto work = layer.workspace(tokens);
        auto gradients = layer.gradients();
        layer.forward(x, out, work, {.training = true, .seed = 3});
        layer.backward(x, d_y, d_in, gradients, work);
        return gradients.experts;
      };
      const auto found = run(bank, y, d_x);
      const auto expected = run(plain, plain_y, plain_d_x);
      CAPTURE(all, dropout);
      CHECK(support::same_bits(y, plain_y));
      CHECK(support::same_bits(d_x, plain_d_x));  // the frozen atoms have their part in it
      REQUIRE(found.lora_A.rows() == 5);
      REQUIRE(found.lora_B.rows() == 5);
      const auto largest = [](const Matrix<T>& m) {
        return double(std::abs(*std::max_element(m.elements().begin(), m.elements().end(),
                                                 [](T v, T w) { return std::abs(v) < std::abs(w); })));
      };
      CHECK(difference(found.lora_A.view(), expected.lora_A.view().middle_rows(7, 5)) <=
            Tolerance<T>::layer * largest(expected.lora_A));
      CHECK(difference(found.lora_B.view(), expected.lora_B.view().middle_rows(7, 5)) <=
            Tolerance<T>::layer * largest(expected.lora_B));
    }
}

TEMPLATE_TEST_CASE("The gradients of a bank are exact", "[factors]", Reference, Simd<>) {
  for (bool all : {false, true}) {
    auto layer = self_routed(grown_experts<double>(), TestType{}, all);
    const auto report = check_gradients(layer);
    CAPTURE(all, report.worst_tensor);
    CHECK(report.worst < 1e-8);
    CHECK(report.checked >= 7 * 11 + 5 * 24 - report.moved);
  }
}

TEST_CASE("Training changes the newest atoms and no bit of the others", "[factors]") {
  auto layer = self_routed(grown_experts<float>(), Simd<>{}, false);
  const Matrix<float> a = copied(tables(layer.experts()).a), b = copied(tables(layer.experts()).b);
  auto work = layer.workspace(20);
  auto gradients = layer.gradients();
  AdamW adamw({.learning_rate = 1e-2});
  Rng rng(8);
  for (std::uint64_t step = 0; step < 10; ++step) {
    Matrix<float> x(20, 11), y(20, 13);
    fill_uniform(x.view(), 1, rng);
    set_zero(gradients);
    layer.forward(x, y, work, {.training = true, .step = step});
    layer.backward(x, y, {}, gradients, work);
    adamw.step(layer, gradients);
  }
  const auto now = tables(layer.experts());
  CHECK(support::same_bits(now.a.top(7), a.view().top(7)));
  CHECK(support::same_bits(now.b.top(7), b.view().top(7)));
  for (Index j = 7; j < 12; ++j) {
    CHECK_FALSE(support::same_bits(now.a.middle_rows(j, 1), a.view().middle_rows(j, 1)));
    CHECK_FALSE(support::same_bits(now.b.middle_rows(j, 1), b.view().middle_rows(j, 1)));
  }
}

TEST_CASE("After growth an old workspace and a router that has not grown are refused", "[factors]") {
  auto layer = self_routed(grown_experts<float>(), Simd<>{}, false);
  const auto x = support::random_matrix<float>(3, 11, 1);
  Matrix<float> y(3, 13);
  auto old = layer.workspace(3);
  Rng rng(1);
  layer.experts().append(4, rng);
  CHECK(code_of([&] { layer.forward(x, y, old); }) == ErrorCode::shape);
  CHECK(code_of([&] { layer.workspace(3); }) == ErrorCode::shape);
  layer.router().append(4);
  CHECK(code_of([&] { layer.forward(x, y, old); }) == ErrorCode::capacity);
  auto work = layer.workspace(3);
  layer.forward(x, y, work);
  CHECK(support::all_finite(std::as_const(y).elements()));
}

TEST_CASE("The walks of a layer with a bank visit all of it once", "[factors]") {
  auto layer = self_routed(grown_experts<float>(), Simd<>{}, false);
  std::vector<std::string> names;
  layer.for_each_tensor([&](std::string_view name, View<float> tensor) {
    names.push_back(std::string(name) + " " + std::to_string(tensor.rows()));
  });
  layer.for_each_state([&](std::string_view name, auto numbers) {
    names.push_back(std::string(name) + " " + std::to_string(numbers.size()));
  });
  CHECK(names == std::vector<std::string>{"experts.lora_A 5", "experts.lora_B 5", "base.weight 13", "router.bias 12",
                                          "experts.ranks 12", "experts.scale 12", "experts.frozen_A 77",
                                          "experts.frozen_B 91"});
}

TEMPLATE_TEST_CASE("A bank keeps the laws of factors, with frozen atoms and without", "[factors]", float, double) {
  Rng rng(6);
  GrowingBank<TestType> bank({.in = 11, .out = 6, .ranks = {3}}, rng);
  fill_uniform(bank.parameters().lora_B.view(), 1, rng);
  CHECK(laws::broken_factor_law(bank) == "");
  bank.append(2, rng);
  CHECK(laws::broken_factor_law(bank) == "");
}

#if !MOLE_TEST_ADDRESS_SANITIZER
TEST_CASE("A bank that runs out of memory is the one of before", "[factors]") {
  Rng rng(1);
  GrowingBank<float> bank({.in = 1, .out = 1 << 20, .ranks = {2}}, rng);
  CHECK_THROWS_AS(bank.append(1 << 20, rng), std::bad_alloc);  // 4 TiB
  CHECK(bank.blocks().experts() == 2);
  CHECK(bank.parameters().lora_A.rows.rows() == 2);
  CHECK(bank.parameters().lora_B.rows.rows() == 2);
  CHECK(bank.ranges() == std::vector<int>{2});
}
#endif
