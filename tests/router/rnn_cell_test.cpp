// SPDX-License-Identifier: MIT
#include "mole/router/rnn_cell.hpp"

#include "core/error_code.hpp"
#include "mole/execution/simd.hpp"
#include "mole/execution/thread_pool.hpp"
#include "mole/router/recurrent_router.hpp"
#include "mole/testing/router_laws.hpp"
#include "support/catch.hpp"
#include "support/central_differences.hpp"
#include "support/layers.hpp"

using namespace mole;
using support::random_matrix;

namespace {

template <class T>
RnnCell<T> rnn_cell(Index inputs, Index width) {
  Rng rng(3);
  return RnnCell<T>({.in = inputs, .width = width}, rng);
}

template <class T>
struct RnnStep {
  Matrix<T> after, d_u, d_before;
  typename RnnCell<T>::Parameters gradients;
};

template <class Execution = Reference, class T>
RnnStep<T> rnn_step(const RnnCell<T>& cell, const Matrix<T>& u, ConstView<T> before, const Matrix<T>& d_after,
                    const Execution& execution = {}) {
  laws::Harness<RnnCell<T>, Execution> harness(cell, u.rows(), 0, {}, execution);
  auto call = harness.call();
  RnnStep<T> result{Matrix<T>(u.rows(), cell.width()), Matrix<T>(u.rows(), u.cols()), Matrix<T>(u.rows(), cell.width()),
                    cell.gradients()};
  cell.forward(u, before, result.after.view(), call);
  cell.backward(u, before, d_after, result.d_u.view(), result.d_before.view(), result.gradients, call);
  return result;
}

template <class T>
double largest_rnn_difference(const RnnStep<T>& a, const RnnStep<T>& b) {
  double most = std::max({support::largest_difference(a.after, b.after), support::largest_difference(a.d_u, b.d_u),
                          support::largest_difference(a.d_before, b.d_before)});
  RnnCell<T>::Parameters::for_each_tensor(
      [&](std::string_view, const auto& one, const auto& other) {
        most = std::max(most, support::largest_difference(one, other));
      },
      a.gradients, b.gradients);
  return most;
}

}  // namespace

static_assert(TrainableRouterPolicy<RecurrentRouter<float, RnnCell<float>>>);

TEST_CASE("A state is the tanh of two linear maps, of zeros before the first layer", "[router]") {
  const auto cell = rnn_cell<double>(3, 4);
  const auto u = random_matrix<double>(5, 3, 1), before = random_matrix<double>(5, 4, 2);
  const auto& p = cell.parameters();
  for (bool first : {false, true}) {
    const auto found = rnn_step(cell, u, first ? ConstView<double>() : ConstView<double>(before), before);
    for (Index n = 0; n < 5; ++n)
      for (Index j = 0; j < 4; ++j) {
        long double sum = (long double)p.input.bias(0, j) + p.hidden.bias(0, j);
        for (Index i = 0; i < 3; ++i) sum += (long double)p.input.weight(j, i) * u(n, i);
        for (Index i = 0; i < 4 && !first; ++i) sum += (long double)p.hidden.weight(j, i) * before(n, i);
        CHECK(std::abs(found.after(n, j) - double(std::tanh(sum))) < 1e-15);
      }
  }
}

TEST_CASE("All gradients of the plain cell agree with central differences", "[router]") {
  auto cell = rnn_cell<double>(3, 4);
  auto u = random_matrix<double>(5, 3, 1), before = random_matrix<double>(5, 4, 2);
  const auto d_after = random_matrix<double>(5, 4, 3);
  auto found = rnn_step(cell, u, before, d_after);
  const auto value = [&] {
    const auto now = rnn_step(cell, u, before, d_after);
    double sum = 0;
    for (std::size_t i = 0; i < now.after.elements().size(); ++i)
      sum += now.after.elements()[i] * d_after.elements()[i];
    return sum;
  };
  const auto error = [&](Matrix<double>& numbers, Matrix<double>& gradient) {
    return test::gradient_error(numbers.elements(), gradient.elements(), value);
  };
  CHECK(error(u, found.d_u) < test::gradient_tolerance);
  CHECK(error(before, found.d_before) < test::gradient_tolerance);
  RnnCell<double>::Parameters::for_each_tensor(
      [&](std::string_view name, auto& parameter, auto& gradient) {
        INFO(name);
        CHECK(error(parameter, gradient) < test::gradient_tolerance);
      },
      cell.parameters(), found.gradients);
}

TEMPLATE_TEST_CASE("Vectors of the plain cell compute what single numbers do, on any number of threads", "[router]",
                   float, double) {
  using T = TestType;
  for (Index width : {1, 7, 8, 17, 64}) {
    CAPTURE(width);
    const auto cell = rnn_cell<T>(9, width);
    const auto u = random_matrix<T>(300, 9, 1), before = random_matrix<T>(300, width, 2),
               d_after = random_matrix<T>(300, width, 3);
    const auto plain = rnn_step(cell, u, before, d_after), vectors = rnn_step<Simd<>>(cell, u, before, d_after);
    CHECK(largest_rnn_difference(plain, vectors) < 3000 * double(std::numeric_limits<T>::epsilon()));
    const auto threads = rnn_step(cell, u, before, d_after, Simd(ThreadPool(3)));
    CHECK(largest_rnn_difference(threads, vectors) == 0);
  }
}

TEST_CASE("Inputs of any size give plain states from -1 to 1", "[router]") {
  const auto cell = rnn_cell<float>(3, 20);
  const auto u = random_matrix<float>(5, 3, 1, 1e30), before = random_matrix<float>(5, 20, 2);
  for (const auto& result : {rnn_step(cell, u, before, before), rnn_step<Simd<>>(cell, u, before, before)}) {
    CHECK(std::ranges::all_of(result.after.elements(), [](float h) { return std::abs(h) <= 1; }));
    CHECK(support::all_finite(result.d_u.elements()));
  }
}

TEST_CASE("A recurrent router over plain cells keeps the laws, and its layer has the right gradients", "[router]") {
  const auto cell = rnn_cell<double>(5, 7);
  Rng rng(1);
  const RecurrentRouter<double, RnnCell<double>> router({.in = 11, .experts = 4}, cell, rng);
  CHECK(laws::broken_router_law(router, 11) == "");
  CHECK(laws::broken_trainable_router_law(router, 11) == "");
  const auto plain = support::routed_layer<double>({}, support::top_2());
  MixtureLinear layer(router, plain.gating(), plain.experts(), plain.base(), Reference{});
  CHECK(check_gradients(layer).worst < 1e-7);

  // Of two layers, the second's logits have a gradient in what the first one read.
  auto first = layer.workspace(3), second = layer.workspace(3);
  const auto x = random_matrix<double>(3, 11, 1);
  Matrix<double> h(3, 7), d_h(3, 7), d_x(3, 11);
  auto gradients = layer.gradients();
  auto d_cell = cell.gradients();
  first.router_scratch.carry = {.out = h, .d_out = d_h, .d_cell = &d_cell};
  second.router_scratch.carry = {.in = h, .d_in = d_h, .d_cell = &d_cell};
  layer.route(x, first);
  layer.route(x, second);
  fill(second.d_logits(), 1.0);
  layer.route_backward(x, {}, gradients, second);
  layer.route_backward(x, d_x, gradients, first);
  CHECK(support::largest_difference(d_x, Matrix<double>(3, 11)) > 1e-4);
  CHECK(support::largest_difference(d_cell.hidden.weight, Matrix<double>(7, 7)) > 1e-4);
}

TEST_CASE("RnnCell refuses sizes below 1, and halves of different widths", "[router]") {
  Rng rng(1);
  CHECK(test::code_of([&] { RnnCell<float>({.in = 0, .width = 3}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { RnnCell<float>({.in = 3, .width = 0}, rng); }) == ErrorCode::option);
  auto cell = rnn_cell<float>(3, 4);
  cell.parameters().input.weight = Matrix<float>(5, 3);
  cell.parameters().input.bias = Matrix<float>(1, 5);
  CHECK(test::code_of([&] { cell.check_sizes(); }) == ErrorCode::shape);
}
