// SPDX-License-Identifier: MIT
#include "mole/router/module_gates.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace mole;

namespace {

ModuleGates<double> some_gates(ModuleRelaxation relaxation, Index layers = 3, Index modules = 5) {
  ModuleGates<double> gates({.layers = layers, .modules = modules, .relaxation = relaxation});
  gates.parameters().alpha = support::random_matrix<double>(layers, modules, 3);
  return gates;
}

Index kept_in(const ModuleGates<double>& gates, Index layer) {
  Index kept = 0;
  for (Index i = 0; i < gates.options().modules; ++i) kept += gates.keeps(layer, i);
  return kept;
}

}  // namespace

TEST_CASE("Gates of the modules of a layer are a softmax, or each a sigmoid, and start alike", "[router]") {
  const auto shares = some_gates(ModuleRelaxation::softmax), own = some_gates(ModuleRelaxation::sigmoid);
  for (Index l = 0; l < 3; ++l) {
    double sum = 0, exponentials = 0;
    for (Index i = 0; i < 5; ++i) exponentials += std::exp(shares.parameters().alpha(l, i));
    for (Index i = 0; i < 5; ++i) {
      sum += shares.gate(l, i);
      CHECK(std::abs(shares.gate(l, i) - std::exp(shares.parameters().alpha(l, i)) / exponentials) < 1e-15);
      CHECK(std::abs(own.gate(l, i) - 1 / (1 + std::exp(-own.parameters().alpha(l, i)))) < 1e-15);
    }
    CHECK(std::abs(sum - 1) < 1e-15);
  }
  CHECK(ModuleGates<double>({.layers = 1, .modules = 4}).gate(0, 2) == 0.25);
  CHECK(ModuleGates<double>({.layers = 1, .modules = 4, .relaxation = ModuleRelaxation::sigmoid}).gate(0, 2) == 0.5);
}

TEST_CASE("Gradients of alpha are derivatives; those of a softmax sum to 0 over a layer", "[router]") {
  for (ModuleRelaxation relaxation : {ModuleRelaxation::softmax, ModuleRelaxation::sigmoid}) {
    auto gates = some_gates(relaxation);
    auto gradients = gates.gradients();
    const double d_gate[] = {0.3, -1, 0.8, 0.1, 2};
    for (Index i = 0; i < 5; ++i) gates.add_gradient(1, i, d_gate[i], gradients);
    double sum = 0;
    for (Index i = 0; i < 5; ++i) {
      sum += gradients.alpha(1, i);
      double& alpha = gates.parameters().alpha(1, i);
      const double before = alpha;
      const auto value_at = [&](double offset) {
        alpha = before + offset;
        double value = 0;
        for (Index j = 0; j < 5; ++j) value += d_gate[j] * gates.gate(1, j);
        return value;
      };
      const double expected = (value_at(1e-5) - value_at(-1e-5)) / 2e-5;
      alpha = before;
      CHECK(std::abs(gradients.alpha(1, i) - expected) < 1e-9);
      CHECK(gradients.alpha(0, i) == 0);
    }
    CHECK((std::abs(sum) < 1e-15) == (relaxation == ModuleRelaxation::softmax));
  }
}

TEST_CASE("Discretizing keeps a share of each layer's modules, the largest, whatever their common offset", "[router]") {
  for (const auto& [ratio, count] : {std::pair{0.0, 0}, {0.2, 1}, {0.21, 2}, {0.5, 3}, {0.6, 3}, {1.0, 5}}) {
    auto gates = some_gates(ModuleRelaxation::softmax), moved = gates;
    for (double& alpha : moved.parameters().alpha.view().row(1)) alpha += 8;  // a power of 2: hardly any rounding
    gates.discretize(ratio), moved.discretize(ratio);
    for (Index l = 0; l < 3; ++l) {
      CHECK(kept_in(gates, l) == count);
      for (Index i = 0; i < 5; ++i) {
        CHECK(gates.keeps(l, i) == moved.keeps(l, i));
        CHECK(gates.gate(l, i) == (gates.keeps(l, i) ? 1 : 0));
        for (Index j = 0; j < 5; ++j)
          if (gates.keeps(l, i) && !gates.keeps(l, j))
            CHECK(gates.parameters().alpha(l, i) > gates.parameters().alpha(l, j));
      }
    }
    auto gradients = gates.gradients();
    gates.add_gradient(0, 0, 1, gradients);
    CHECK(support::same_bits(gradients.alpha, Matrix<double>(3, 5)));
    gates.relax();
    CHECK(gates.gate(0, 0) == some_gates(ModuleRelaxation::softmax).gate(0, 0));
  }
  ModuleGates<double> equal({.layers = 1, .modules = 100});
  equal.discretize(0.07);  // 0.07 * 100 > 7 in floating point
  CHECK(kept_in(equal, 0) == 7);
  for (Index i = 0; i < 7; ++i) CHECK(equal.keeps(0, i));
}

TEST_CASE("A choice of modules is state", "[router]") {
  auto gates = some_gates(ModuleRelaxation::softmax), restored = gates;
  gates.discretize(0.4);
  std::vector<std::vector<std::uint8_t>> saved;
  gates.for_each_state([&](std::string_view, auto span) { saved.emplace_back(span.begin(), span.end()); });
  auto next = saved.begin();
  restored.for_each_state([&](std::string_view, auto span) { std::ranges::copy(*next++, span.begin()); });
  for (Index i = 0; i < 5; ++i) CHECK(restored.gate(2, i) == gates.gate(2, i));
}

TEST_CASE("ModuleGates refuse sizes below 1, ratios that are none, and gradients of others", "[router]") {
  using Gates = ModuleGates<double>;
  CHECK(test::code_of([] { Gates({.layers = 0, .modules = 2}); }) == ErrorCode::option);
  CHECK(test::code_of([] { Gates({.layers = 2, .modules = 0}); }) == ErrorCode::option);
  auto gates = some_gates(ModuleRelaxation::softmax);
  for (double ratio : {-0.1, 1.1, std::nan("")})
    CHECK(test::code_of([&] { gates.discretize(ratio); }) == ErrorCode::option);
  CHECK(test::code_of([&] { gates.check_gradients({Matrix<double>(5, 3)}, "test"); }) == ErrorCode::shape);
  CHECK_NOTHROW(gates.check_gradients({}, "test"));
  gates.parameters().alpha = {};
  CHECK(test::code_of([&] { gates.check_sizes(); }) == ErrorCode::shape);
}
