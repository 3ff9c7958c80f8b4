// SPDX-License-Identifier: MIT
// What the tests of all combiners share.
#pragma once

#include "core/error_code.hpp"
#include "mole/testing/central_differences.hpp"
#include "mole/testing/harness.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <limits>

namespace combiner_checks {

/// Of 4 inputs and 3 experts.
inline constexpr std::uint8_t some_allowed[] = {1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1};

template <class Combiner>
mole::Matrix<double> combined(const Combiner& combiner, const mole::Matrix<double>& x, const mole::Pass& pass = {}) {
  mole::laws::Harness<Combiner> harness(combiner, x.rows(), 0, pass);
  mole::Matrix<double> y(x.rows(), combiner.out());
  fill(y.view(), 99.0);  // forward overwrites
  combiner.forward(x, y.view(), harness.call());
  return y;
}

/// The results of one backward.
template <class Combiner>
struct CombinerGradients {
  mole::ParametersOf<Combiner> parameters;
  mole::Matrix<double> x;

  CombinerGradients(const Combiner& combiner, const mole::Matrix<double>& x_, const mole::Matrix<double>& d_y,
                    const mole::Pass& pass)
      : parameters(zeros_like(combiner.parameters())), x(x_.rows(), x_.cols()) {
    mole::laws::Harness<Combiner> harness(combiner, x_.rows(), 0, pass);
    mole::Matrix<double> y(x_.rows(), combiner.out());
    combiner.forward(x_, y.view(), harness.call());
    combiner.backward(x_, d_y, x.view(), parameters, harness.call());
  }
};

/// Does an optimizer that steps the combiner by ones move every number of it?
template <class Combiner>
bool a_step_moves_all(Combiner combiner) {
  auto gradients = combiner.gradients();
  const auto before = combiner.parameters();
  mole::ParametersOf<Combiner>::for_each_tensor([](std::string_view, auto& tensor) { fill(tensor.view(), 1); },
                                                gradients);
  mole::Sgd({.learning_rate = 0.5}).step(combiner, gradients);
  bool all = true;
  mole::ParametersOf<Combiner>::for_each_tensor(
      [&](std::string_view, const auto& was, const auto& is) {
        for (std::size_t i = 0; i < was.elements().size(); ++i)
          all = all && std::abs(was.elements()[i] - is.elements()[i] - 0.5) < 1e-12;
      },
      before, combiner.parameters());
  return all;
}

/// The largest error of all gradients, of 4 inputs.
template <class Combiner>
double worst_gradient(Combiner combiner, const mole::Pass& pass) {
  auto x = support::random_matrix<double>(4, combiner.experts() * combiner.features(), 2);
  const auto d_y = support::random_matrix<double>(4, combiner.out(), 3);
  const CombinerGradients<Combiner> found(combiner, x, d_y, pass);
  const auto loss = [&] {
    const auto y = combined(combiner, x, pass);
    double sum = 0;
    for (std::size_t i = 0; i < y.elements().size(); ++i) sum += y.elements()[i] * d_y.elements()[i];
    return sum;
  };
  double worst = mole::laws::gradient_error(x.elements(), found.x.elements(), loss);
  mole::ParametersOf<Combiner>::for_each_tensor(
      [&](std::string_view, auto& tensor, const auto& gradient) {
        worst = std::max(worst, mole::laws::gradient_error(tensor.elements(), gradient.elements(), loss));
      },
      combiner.parameters(), found.parameters);
  return worst;
}

/// Calls that do not fit, or have no forward, are refused, and leave what is there.
template <class Combiner>
void refuses_calls_that_do_not_fit(const Combiner& combiner) {
  using mole::ErrorCode, mole::Matrix, mole::test::code_of;
  const mole::Index columns = combiner.experts() * combiner.features(), out = combiner.out();
  const auto x = support::random_matrix<double>(4, columns, 2), d_y = support::random_matrix<double>(4, out, 3),
             narrow = support::random_matrix<double>(4, columns - 1, 2),
             many = support::random_matrix<double>(5, columns, 2);
  mole::laws::Harness<Combiner> harness(combiner, 4);
  auto gradients = combiner.gradients();
  Matrix<double> y(4, out), wide(4, out + 1), five(5, out), d_x(4, columns), d_narrow(4, columns - 1);
  const auto backward = [&](const Matrix<double>& d, Matrix<double>& to) {
    return code_of([&] { combiner.backward(x, d, to.view(), gradients, harness.call()); });
  };
  CHECK(backward(d_y, d_x) == ErrorCode::order);
  CHECK(code_of([&] { combiner.forward(narrow, y.view(), harness.call()); }) == ErrorCode::shape);
  CHECK(code_of([&] { combiner.forward(x, wide.view(), harness.call()); }) == ErrorCode::shape);
  CHECK(code_of([&] { combiner.forward(many, five.view(), harness.call()); }) == ErrorCode::capacity);
  const std::vector<std::uint8_t> few(std::size_t(3 * combiner.experts()), 1);
  mole::laws::Harness<Combiner> flagged(combiner, 4, 0, {.allowed = few});
  CHECK(code_of([&] { combiner.forward(x, y.view(), flagged.call()); }) == ErrorCode::shape);
  for (double number : y.elements()) CHECK(number == 0);

  combiner.forward(x, y.view(), harness.call());
  CHECK(backward(wide, d_x) == ErrorCode::shape);
  CHECK(backward(d_y, d_narrow) == ErrorCode::shape);
  for (double number : d_x.elements()) CHECK(number == 0);
  CHECK_FALSE(backward(d_y, d_x));
  CHECK(backward(d_y, d_x) == ErrorCode::order);
}

/// Are results and gradients the same bits whatever the experts hold that are ruled out, NaN even?
template <class Combiner>
bool excluded_reaches_nothing(const Combiner& combiner) {
  const auto clean = support::random_matrix<double>(4, combiner.experts() * combiner.features(), 2);
  const auto d_y = support::random_matrix<double>(4, combiner.out(), 3);
  auto x = clean;
  for (mole::Index n = 0; n < 4; ++n)
    for (mole::Index e = 0; e < 3; ++e)
      for (mole::Index i = 0; i < combiner.features() && !some_allowed[n * 3 + e]; ++i)
        x(n, e * combiner.features() + i) = std::numeric_limits<double>::quiet_NaN();
  const mole::Pass pass{.allowed = some_allowed};
  const CombinerGradients<Combiner> one(combiner, clean, d_y, pass), other(combiner, x, d_y, pass);
  bool same = support::same_bits(combined(combiner, clean, pass), combined(combiner, x, pass)) &&
              support::same_bits(one.x, other.x);
  mole::ParametersOf<Combiner>::for_each_tensor(
      [&](std::string_view, const auto& a, const auto& b) { same = same && support::same_bits(a, b); }, one.parameters,
      other.parameters);
  for (mole::Index n = 0; n < 4; ++n)
    for (mole::Index e = 0; e < 3; ++e)
      for (mole::Index i = 0; i < combiner.features() && !some_allowed[n * 3 + e]; ++i)
        same = same && one.x(n, e * combiner.features() + i) == 0;
  return same;
}

}  // namespace combiner_checks
