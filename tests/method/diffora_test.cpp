// SPDX-License-Identifier: MIT
#include "mole/method/diffora.hpp"

#include "method/method_checks.hpp"
#include "mole/method/lora.hpp"
#include "mole/optim/bilevel_turns.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

namespace {

auto module_gates(Index modules, ModuleRelaxation relaxation = ModuleRelaxation::softmax) {
  const auto gates = std::make_shared<ModuleGates<double>>(
      ModuleGates<double>::Options{.layers = 1, .modules = modules, .relaxation = relaxation});
  gates->parameters().alpha = support::random_matrix<double>(1, modules, 3);
  return gates;
}

}  // namespace

TEST_CASE("A module that is kept is a plain LoRA, and one that is dropped its base, bit for bit", "[method]") {
  const auto gates = module_gates(3);
  Rng rng(1), same(1);
  const auto layer = support::with_random_b(diffora({.module = 1}, gates, DenseBase{weight}, rng));
  const auto plain = support::with_random_b(lora({.rank = 8, .alpha = 16}, DenseBase{weight}, same));
  Matrix<double> relaxed = support::output(layer, tokens);
  gates->discretize(1);
  const auto kept = support::output(layer, tokens);
  CHECK(support::same_bits(kept, support::output(plain, tokens)));
  gates->discretize(0);
  const auto dropped = support::output(layer, tokens);
  Rng fresh(1);
  CHECK(support::same_bits(dropped, support::output(lora({}, DenseBase{weight}, fresh), tokens)));
  gates->relax();
  const double g = gates->gate(0, 1);
  for (std::size_t i = 0; i < relaxed.elements().size(); ++i)
    CHECK(std::abs(relaxed.elements()[i] - (1 - g) * dropped.elements()[i] - g * kept.elements()[i]) < 1e-12);
}

TEST_CASE("Gradients of diffora are exact, those of the gates that its layers share too", "[method]") {
  for (ModuleRelaxation relaxation : {ModuleRelaxation::softmax, ModuleRelaxation::sigmoid}) {
    const auto gates = module_gates(3, relaxation);
    Rng rng(1);
    CHECK(gradient_error(diffora({.rank = 2, .dropout = 0.2}, gates, DenseBase{weight}, rng)) < 1e-8);
    const auto first = support::with_random_b(diffora({.module = 0}, gates, DenseBase{weight}, rng), 1);
    const auto third = support::with_random_b(diffora({.module = 2}, gates, DenseBase{weight}, rng), 2);
    const auto d_y = support::random_matrix<double>(tokens.rows(), 13, 4);
    auto d_gates = gates->gradients();
    for (const auto* layer : {&first, &third}) {
      auto work = layer->workspace(tokens.rows());
      auto gradients = layer->gradients();
      gradients.router.gates = &d_gates;
      Matrix<double> y(tokens.rows(), 13);
      layer->forward(tokens, y, work);
      layer->backward(tokens, d_y, {}, gradients, work);
    }
    double sum = 0;
    for (Index j = 0; j < 3; ++j) {
      sum += d_gates.alpha(0, j);
      double& alpha = gates->parameters().alpha(0, j);
      const double before = alpha;
      const auto value_at = [&](double offset) {
        alpha = before + offset;
        double value = 0;
        for (const auto* layer : {&first, &third}) {
          const auto y = support::output(*layer, tokens);
          for (std::size_t i = 0; i < y.elements().size(); ++i) value += y.elements()[i] * d_y.elements()[i];
        }
        return value;
      };
      const double expected = (value_at(1e-5) - value_at(-1e-5)) / 2e-5;
      alpha = before;
      CHECK(std::abs(d_gates.alpha(0, j) - expected) < 1e-6);
    }
    CHECK((std::abs(sum) < 1e-11) == (relaxation == ModuleRelaxation::softmax));
  }
}

TEST_CASE("Turns of weights and gates find the module that has something to learn", "[method]") {
  // Three modules, of which the second should become another map. What the others see besides their own is noise, which
  // they fit on training data and are told on validation data.
  const auto gates = std::make_shared<ModuleGates<double>>(ModuleGates<double>::Options{.layers = 1, .modules = 3});
  Rng rng(1);
  using Layer = decltype(diffora({}, gates, DenseBase{weight}, rng));
  std::vector<Layer> layers;
  for (Index m = 0; m < 3; ++m)
    layers.push_back(diffora({.module = m, .rank = 2, .alpha = 2}, gates, DenseBase{weight}, rng));
  Matrix<double> other = weight;
  for (Index o = 0; o < 13; ++o)
    for (Index i = 0; i < 11; ++i) other(o, i) += 0.3 * std::sin(double(o)) * std::cos(double(i));
  AdamW weights({.learning_rate = 0.02}), of_gates({.learning_rate = 0.05});
  auto d_gates = gates->gradients();
  const auto training = support::random_matrix<double>(30, 11, 8),
             validation = support::random_matrix<double>(30, 11, 9);
  const auto noise_of_training = support::random_matrix<double>(30, 13, 6),
             noise_of_validation = support::random_matrix<double>(30, 13, 7);
  const BilevelTurns turns{.warmup = 20};
  for (Index t = 0; t < 200; ++t) {
    const bool lower = turns(t) == Turn::lower;
    const Matrix<double>&x = lower ? training : validation, &noise = lower ? noise_of_training : noise_of_validation;
    std::vector<typename Layer::Gradients> gradients;
    set_zero(d_gates);
    for (std::size_t m = 0; m < 3; ++m) {
      gradients.push_back(layers[m].gradients());
      if (!lower) gradients[m].router.gates = &d_gates;
      auto work = layers[m].workspace(30);
      Matrix<double> y(30, 13);
      layers[m].forward(x, y, work);
      for (Index n = 0; n < 30; ++n)
        for (Index o = 0; o < 13; ++o) {
          y(n, o) -= noise(n, o);
          for (Index i = 0; i < 11; ++i) y(n, o) -= (m == 1 ? other : weight)(o, i) * x(n, i);
        }
      layers[m].backward(x, y, {}, gradients[m], work);
    }
    if (lower)
      weights.step([&](auto&& f) {
        for (std::size_t m = 0; m < 3; ++m) for_each_tensor_within(std::to_string(m), layers[m], f, gradients[m]);
      });
    else
      of_gates.step([&](auto&& f) { gates->for_each_tensor(f, d_gates); });
  }
  gates->discretize(0.3);
  for (Index m = 0; m < 3; ++m) CHECK(gates->keeps(0, m) == (m == 1));
}
