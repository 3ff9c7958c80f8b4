// SPDX-License-Identifier: MIT
#include "mole/router/gru_cell.hpp"

#include "core/error_code.hpp"
#include "mole/execution/simd.hpp"
#include "mole/execution/thread_pool.hpp"
#include "mole/optim/adamw.hpp"
#include "mole/testing/harness.hpp"
#include "support/catch.hpp"
#include "support/central_differences.hpp"
#include "support/random_matrix.hpp"

#include <set>
#include <string>

using namespace mole;
using support::random_matrix;

namespace {

template <class T>
GruCell<T> cell_of(Index inputs, Index width) {
  Rng rng(3);
  return GruCell<T>({.in = inputs, .width = width}, rng);
}

/// h' for rows of u and h, and all gradients of <h', d_after>.
template <class T>
struct Step {
  Matrix<T> after, d_u, d_before;
  typename GruCell<T>::Parameters gradients;
};

template <class Execution = Reference, class T>
Step<T> step(const GruCell<T>& cell, const Matrix<T>& u, ConstView<T> before, const Matrix<T>& d_after,
             const Execution& execution = {}) {
  laws::Harness<GruCell<T>, Execution> harness(cell, u.rows(), 0, {}, execution);
  auto call = harness.call();
  Step<T> result{Matrix<T>(u.rows(), cell.width()), Matrix<T>(u.rows(), u.cols()), Matrix<T>(u.rows(), cell.width()),
                 cell.gradients()};
  cell.forward(u, before, result.after.view(), call);
  cell.backward(u, before, d_after, result.d_u.view(), result.d_before.view(), result.gradients, call);
  return result;
}

template <class T>
double largest_difference(Step<T>& a, Step<T>& b) {
  double most = std::max({support::largest_difference(a.after, b.after), support::largest_difference(a.d_u, b.d_u),
                          support::largest_difference(a.d_before, b.d_before)});
  GruCell<T>::Parameters::for_each_tensor(
      [&](std::string_view, const auto& one, const auto& other) {
        most = std::max(most, support::largest_difference(one, other));
      },
      a.gradients, b.gradients);
  return most;
}

}  // namespace

TEST_CASE("One state of one number is the published one", "[router]") {
  GruCell<double> cell = cell_of<double>(1, 1);
  auto& p = cell.parameters();
  const double input[] = {0.4, -0.3, 0.7}, hidden[] = {0.2, 0.5, -0.6};
  const double input_bias[] = {0.1, -0.2, 0.05}, hidden_bias[] = {0, 0, 0.3};
  std::ranges::copy(input, p.input.weight.data());
  std::ranges::copy(hidden, p.hidden.weight.data());
  std::ranges::copy(input_bias, p.input.bias.data());
  std::ranges::copy(hidden_bias, p.hidden.bias.data());
  Matrix<double> u(1, 1), before(1, 1);
  u(0, 0) = 0.6, before(0, 0) = -0.4;
  CHECK(std::abs(step(cell, u, before, before).after(0, 0) - 0.272974463) < 5e-10);
}

TEST_CASE("A state that does not exist yet is a state of zeros", "[router]") {
  const auto cell = cell_of<double>(5, 4);
  const auto u = random_matrix<double>(7, 5, 1), d_after = random_matrix<double>(7, 4, 2);
  auto absent = step(cell, u, {}, d_after), zero = step(cell, u, Matrix<double>(7, 4), d_after);
  CHECK(largest_difference(absent, zero) < 1e-15);
}

TEST_CASE("All gradients of the cell agree with central differences", "[router]") {
  auto cell = cell_of<double>(3, 4);
  auto u = random_matrix<double>(5, 3, 1), before = random_matrix<double>(5, 4, 2);
  const auto d_after = random_matrix<double>(5, 4, 3);
  auto found = step(cell, u, before, d_after);
  const auto value = [&] {
    const auto now = step(cell, u, before, d_after);
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
  GruCell<double>::Parameters::for_each_tensor(
      [&](std::string_view name, auto& parameter, auto& gradient) {
        INFO(name);
        CHECK(error(parameter, gradient) < test::gradient_tolerance);
      },
      cell.parameters(), found.gradients);
}

TEMPLATE_TEST_CASE("All gradients of the cell are added to what is there", "[router]", Reference, Simd<>) {
  const auto cell = cell_of<double>(3, 16);
  const auto u = random_matrix<double>(5, 3, 1), before = random_matrix<double>(5, 16, 2),
             d_after = random_matrix<double>(5, 16, 3);
  auto expected = step<TestType>(cell, u, before, d_after), found = expected;
  const auto for_each_gradient = [](Step<double>& s, auto f) {
    f(s.d_u), f(s.d_before);
    GruCell<double>::Parameters::for_each_tensor([&](std::string_view, Matrix<double>& tensor) { f(tensor); },
                                                 s.gradients);
  };
  for_each_gradient(found, [](Matrix<double>& gradient) { fill(gradient.view(), 1); });
  laws::Harness<GruCell<double>, TestType> harness(cell, 5, 0, {}, TestType{});
  auto call = harness.call();
  cell.forward(u, before, found.after.view(), call);
  cell.backward(u, before, d_after, found.d_u.view(), found.d_before.view(), found.gradients, call);
  for_each_gradient(expected, [](Matrix<double>& gradient) {
    for (double& number : gradient.elements()) number += 1;
  });
  CHECK(largest_difference(found, expected) < 1e-14);
}

TEMPLATE_TEST_CASE("Vectors compute what single numbers do, at every width", "[router]", float, double) {
  using T = TestType;
  for (Index width : {1, 3, 7, 8, 16, 17, 64, 100}) {
    CAPTURE(width);
    const auto cell = cell_of<T>(9, width);
    const auto u = random_matrix<T>(6, 9, 1), before = random_matrix<T>(6, width, 2),
               d_after = random_matrix<T>(6, width, 3);
    auto plain = step(cell, u, before, d_after), vectors = step<Simd<>>(cell, u, before, d_after);
    CHECK(largest_difference(plain, vectors) < 200 * double(std::numeric_limits<T>::epsilon()));
  }
}

TEST_CASE("Logits of any size give states from -1 to 1", "[router]") {
  const auto cell = cell_of<float>(3, 20);
  const auto u = random_matrix<float>(5, 3, 1, 1e30), before = random_matrix<float>(5, 20, 2);
  for (const auto& result : {step(cell, u, before, before), step<Simd<>>(cell, u, before, before)}) {
    CHECK(support::all_finite(result.after.elements()));
    CHECK(std::ranges::all_of(result.after.elements(), [](float h) { return std::abs(h) <= 1; }));
    CHECK(support::all_finite(result.d_u.elements()));
  }
}

TEST_CASE("The bits of a cell do not depend on the number of threads", "[router][threads]") {
  const auto cell = cell_of<float>(24, 130);
  const auto u = random_matrix<float>(150, 24, 1), before = random_matrix<float>(150, 130, 2);
  auto alone = step<Simd<>>(cell, u, before, before);
  for (int threads : {2, 5}) {
    const Simd<kernel::DefaultArchitecture, ThreadPool> execution{ThreadPool(threads)};
    auto shared = step(cell, u, before, before, execution);
    CHECK(largest_difference(alone, shared) == 0);
  }
}

TEST_CASE("A frozen cell still hands gradients on", "[router]") {
  const auto cell = cell_of<double>(3, 4);
  const auto u = random_matrix<double>(5, 3, 1), before = random_matrix<double>(5, 4, 2);
  const auto wanted = step(cell, u, before, before);
  laws::Harness<GruCell<double>> harness(cell, 5);
  auto call = harness.call();
  Matrix<double> after(5, 4), d_u(5, 3), d_before(5, 4);
  GruCell<double>::Parameters frozen;
  cell.forward(u, before, after.view(), call);
  cell.backward(u, before, before, d_u.view(), d_before.view(), frozen, call);
  CHECK(support::same_bits(d_u, wanted.d_u));
  CHECK(support::same_bits(d_before, wanted.d_before));
  CHECK_FALSE(any_wanted(frozen));
}

TEST_CASE("An optimizer steps a cell as it steps a layer", "[router]") {
  auto cell = cell_of<double>(3, 4);
  const auto u = random_matrix<double>(5, 3, 1), goal = random_matrix<double>(5, 4, 2, 0.5);
  AdamW<double> adamw({.learning_rate = 0.05, .weight_decay = 0});
  double first = 0, last = 0;
  for (int i = 0; i < 200; ++i) {
    laws::Harness<GruCell<double>> harness(cell, 5);
    auto call = harness.call();
    Matrix<double> after(5, 4), d_after(5, 4);
    cell.forward(u, View<const double>{}, after.view(), call);
    last = 0;
    for (std::size_t j = 0; j < goal.elements().size(); ++j) {
      d_after.elements()[j] = after.elements()[j] - goal.elements()[j];
      last += d_after.elements()[j] * d_after.elements()[j];
    }
    if (i == 0) first = last;
    auto gradients = cell.gradients();
    cell.backward(u, View<const double>{}, d_after, View<double>{}, View<double>{}, gradients, call);
    adamw.step(cell, gradients);
  }
  CHECK(last < 0.01 * first);
  std::set<std::string> names;
  cell.for_each_tensor([&](std::string_view name, auto) { names.emplace(name); });
  CHECK(names == std::set<std::string>{"input.weight", "input.bias", "hidden.weight", "hidden.bias"});
}

TEST_CASE("A cell refuses to be of nothing", "[router]") {
  Rng rng(1);
  CHECK(test::code_of([&] { GruCell<float>({.in = 0, .width = 2}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { GruCell<float>({.in = 3}, rng); }) == ErrorCode::option);
}
