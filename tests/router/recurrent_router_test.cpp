// SPDX-License-Identifier: MIT
#include "mole/router/recurrent_router.hpp"

#include "core/error_code.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/layer/check_gradients.hpp"
#include "mole/testing/router_laws.hpp"
#include "support/catch.hpp"
#include "support/central_differences.hpp"
#include "support/layers.hpp"

#include <vector>

using namespace mole;
using support::random_matrix;

namespace {

GruCell<double> cell_of(Index width) {
  Rng rng(3);
  return GruCell<double>({.in = 5, .width = width}, rng);
}

/// A stack of layers that are a router each, over one cell: logits of every layer, and the gradients of
/// sum_l <logits_l, d_logits_l>.
struct Stack {
  static constexpr Index in = 6, experts = 3, width = 4, tokens = 5;

  explicit Stack(Index depth) {
    Rng rng(4);
    for (Index l = 0; l < depth; ++l) {
      layers.emplace_back(RecurrentRouter<double>::Options{.in = in, .experts = experts}, cell, rng);
      x.push_back(random_matrix<double>(tokens, in, std::uint64_t(10 + l)));
      d_logits.push_back(random_matrix<double>(tokens, experts, std::uint64_t(20 + l)));
    }
  }

  double run() {
    value = 0;
    logits.assign(layers.size(), Matrix<double>(tokens, experts));
    d_x.assign(layers.size(), Matrix<double>(tokens, in));
    std::vector<Matrix<double>> h(layers.size(), Matrix<double>(tokens, width)), d_h = h;
    std::vector<laws::Harness<RecurrentRouter<double>>> calls;
    d_cell = cell.gradients();
    gradients.clear();
    for (std::size_t l = 0; l < layers.size(); ++l) {
      auto& harness = calls.emplace_back(layers[l], tokens);
      auto& carry = harness.scratch().carry;
      carry = {.out = h[l], .d_out = d_h[l], .d_cell = &d_cell};
      if (l > 0) carry.in = h[l - 1], carry.d_in = d_h[l - 1];
      auto call = harness.call();
      layers[l].forward(x[l], logits[l].view(), call);
      for (std::size_t i = 0; i < logits[l].elements().size(); ++i)
        value += logits[l].elements()[i] * d_logits[l].elements()[i];
      gradients.push_back(zeros_like(layers[l].parameters()));
    }
    for (std::size_t l = layers.size(); l-- > 0;) {
      auto call = calls[l].call();
      layers[l].backward(x[l], d_logits[l], d_x[l].view(), gradients[l], call);
    }
    return value;
  }

  GruCell<double> cell = cell_of(width);
  std::vector<RecurrentRouter<double>> layers;
  std::vector<Matrix<double>> x, d_logits, logits, d_x;
  std::vector<RecurrentRouter<double>::Parameters> gradients;
  GruCell<double>::Parameters d_cell;
  double value = 0;
};

}  // namespace

TEMPLATE_TEST_CASE("RecurrentRouter keeps the laws of routers", "[router]", float, double) {
  Rng rng(1);
  const GruCell<TestType> cell({.in = 5, .width = 7}, rng);
  const RecurrentRouter<TestType> router({.in = 13, .experts = 3}, cell, rng);
  CHECK(laws::broken_router_law(router, 13) == "");
  CHECK(laws::broken_trainable_router_law(router, 13) == "");
}

TEST_CASE("A later layer's logits depend on what an earlier one read", "[router]") {
  Stack stack(2);
  stack.d_logits[0].set_zero();
  stack.run();
  const auto of_first_x = stack.d_x[0];
  CHECK(support::largest_difference(of_first_x, Matrix<double>(Stack::tokens, Stack::in)) > 1e-3);
  CHECK(test::gradient_error(stack.x[0].elements(), of_first_x.elements(), [&] { return stack.run(); }) <
        test::gradient_tolerance);
}

TEST_CASE("Gradients of a stack agree with central differences, the shared cell's too", "[router]") {
  Stack stack(3);
  stack.run();
  const auto d_x = stack.d_x;
  const auto gradients = stack.gradients;
  const auto d_cell = stack.d_cell;
  const auto error = [&](Matrix<double>& numbers, const Matrix<double>& gradient) {
    return test::gradient_error(numbers.elements(), gradient.elements(), [&] { return stack.run(); });
  };
  for (std::size_t l = 0; l < stack.layers.size(); ++l) {
    CAPTURE(l);
    auto& parameters = stack.layers[l].parameters();
    CHECK(error(stack.x[l], d_x[l]) < test::gradient_tolerance);
    CHECK(error(parameters.input.weight, gradients[l].input.weight) < test::gradient_tolerance);
    CHECK(error(parameters.output.weight, gradients[l].output.weight) < test::gradient_tolerance);
  }
  GruCell<double>::Parameters::for_each_tensor(
      [&](std::string_view name, auto& parameter, const auto& gradient) {
        INFO(name);
        CHECK(error(parameter, gradient) < test::gradient_tolerance);
      },
      stack.cell.parameters(), d_cell);
}

TEST_CASE("A cell that keeps everything makes logits that do not look at the token", "[router]") {
  Stack stack(2);
  for (Index j = Stack::width; j < 2 * Stack::width; ++j) stack.cell.parameters().input.bias(0, j) = 60;
  stack.run();
  const auto before = stack.logits;
  for (auto& x : stack.x) x = random_matrix<double>(Stack::tokens, Stack::in, 99);
  stack.run();
  for (std::size_t l = 0; l < 2; ++l) CHECK(support::largest_difference(before[l], stack.logits[l]) < 1e-15);
}

TEST_CASE("Tokens keep their states when they change places", "[router]") {
  Stack stack(3);
  stack.run();
  const auto before = stack.logits;
  const auto order = support::reversed(Stack::tokens);
  for (auto& x : stack.x) x = support::permuted(x, order);
  stack.run();
  for (std::size_t l = 0; l < 3; ++l) CHECK(support::same_bits(stack.logits[l], support::permuted(before[l], order)));
}

TEST_CASE("A layer with a recurrent router is a layer like any other", "[router]") {
  const GruCell<double> cell = cell_of(4);
  Rng rng(5);
  auto layer = support::with_random_b(
      MixtureLinear(RecurrentRouter<double>({.in = 6, .experts = 4}, cell, rng), support::top_2(),
                    LowRank<DenseFactors<double>>({.in = 6, .out = 6, .experts = 4, .rank = 2}, rng),
                    DenseBase(random_matrix<double>(6, 6, 6)), Reference{}));
  const GradientReport report = check_gradients(layer);
  INFO(report.worst_tensor);
  CHECK(report.worst < 1e-7);
  CHECK(report.checked > report.moved);

  // Depth: the second layer's workspace is handed the first one's state, and hands its gradient back.
  const auto x = random_matrix<double>(9, 6, 1), d_y = random_matrix<double>(9, 6, 2);
  auto first = layer.workspace(9), second = layer.workspace(9);
  Matrix<double> h(9, 4), d_h(9, 4), y(9, 6), alone(9, 6), d_x(9, 6), d_y1(9, 6);
  auto gradients = layer.gradients();
  auto d_cell = cell.gradients();
  first.router_scratch.carry = {.out = h, .d_out = d_h, .d_cell = &d_cell};
  second.router_scratch.carry = {.in = h, .d_in = d_h, .d_cell = &d_cell};
  layer.forward(x, y, first);
  layer.forward(y, alone, second);
  layer.backward(y, d_y, d_y1, gradients, second);
  CHECK(support::largest_difference(d_h, Matrix<double>(9, 4)) > 1e-6);
  layer.backward(x, d_y1, d_x, gradients, first);
  CHECK(support::all_finite(std::as_const(d_x).elements()));
  CHECK(any_wanted(d_cell));

  second.router_scratch.carry = {};
  Matrix<double> forgetful(9, 6);
  layer.forward(y, forgetful, second);
  CHECK(support::largest_difference(alone, forgetful) > 1e-6);
}

TEST_CASE("A carry stays in a workspace that adapts to another layer", "[router]") {
  const GruCell<double> cell = cell_of(4);
  const auto layer_of = [&](Index rank) {
    Rng rng(5);
    return MixtureLinear(RecurrentRouter<double>({.in = 6, .experts = 4}, cell, rng), support::top_2(),
                         LowRank<DenseFactors<double>>({.in = 6, .out = 6, .experts = 4, .rank = rank}, rng),
                         NoBase<double>(6, 6), Reference{});
  };
  const auto first = layer_of(5), second = layer_of(2);
  const auto x = random_matrix<double>(9, 6, 1), h = random_matrix<double>(9, 4, 2);
  Matrix<double> y(9, 6);
  auto joint = joint_workspace(9, first, second), own = second.workspace(9);
  own.router_scratch.carry = joint.router_scratch.carry = {.in = h};
  second.forward(x, y, own);
  second.forward(x, y, joint);
  CHECK(support::same_bits(joint.logits(), own.logits()));
}

TEST_CASE("A carry of another shape is refused before anything is written", "[router]") {
  const GruCell<double> cell = cell_of(4);
  Rng rng(5);
  const RecurrentRouter<double> router({.in = 6, .experts = 3}, cell, rng);
  laws::Harness<RecurrentRouter<double>> harness(router, 7);
  auto call = harness.call();
  const auto x = random_matrix<double>(7, 6, 1);
  Matrix<double> logits(7, 3), d_x(7, 6), short_one(6, 4), narrow(7, 3);
  auto gradients = zeros_like(router.parameters());
  using Carry = RecurrentRouter<double>::Carry;
  for (const Carry& carry : {Carry{.in = short_one}, Carry{.in = narrow}, Carry{.out = short_one},
                             Carry{.d_out = narrow}, Carry{.d_in = short_one}}) {
    harness.scratch().carry = carry;
    CHECK(test::code_of([&] { router.forward(x, logits.view(), call); }) == ErrorCode::shape);
    CHECK(test::code_of([&] { router.backward(x, logits, d_x.view(), gradients, call); }) == ErrorCode::shape);
  }
  CHECK(support::same_bits(logits, Matrix<double>(7, 3)));
  CHECK(test::code_of([&] { RecurrentRouter<double>({.in = 0, .experts = 3}, cell, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { RecurrentRouter<double>({.in = 6}, cell, rng); }) == ErrorCode::option);
}

TEST_CASE("Gradients of another cell, and a cell that has changed its size, are refused", "[router]") {
  GruCell<double> cell = cell_of(8);
  const GruCell<double> other = cell_of(4);
  Rng rng(1);
  const MixtureLinear layer(RecurrentRouter<double>({.in = 6, .experts = 3}, cell, rng), support::top_2(),
                            LowRank<DenseFactors<double>>({.in = 6, .out = 7, .experts = 3, .rank = 2}, rng),
                            DenseBase(random_matrix<double>(7, 6, 1)));
  const auto x = random_matrix<double>(5, 6, 2);
  Matrix<double> y(5, 7), d_x(5, 6);
  auto work = layer.workspace(5);
  auto gradients = layer.gradients();
  auto wrong = other.gradients();
  work.router_scratch.carry.d_cell = &wrong;
  CHECK(test::code_of([&] { layer.forward(x, y, work); }) == ErrorCode::shape);
  work.router_scratch.carry.d_cell = nullptr;
  CHECK_NOTHROW(layer.forward(x, y, work));
  cell = cell_of(64);
  CHECK(test::code_of([&] { layer.forward(x, y, work); }) == ErrorCode::shape);
  CHECK(test::code_of([&] { layer.backward(x, y, d_x, gradients, work); }) == ErrorCode::shape);
}
