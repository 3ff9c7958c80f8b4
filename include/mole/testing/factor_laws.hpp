// SPDX-License-Identifier: MIT
// The laws of factors, for all factors of the library and a user's own.
#pragma once

#include "mole/factors/factor_policy.hpp"
#include "mole/testing/central_differences.hpp"
#include "mole/testing/first_failure.hpp"
#include "mole/testing/harness.hpp"
#include "mole/testing/random_matrix.hpp"

#include "mole/core/macros_off.hpp"

namespace mole::laws {

namespace detail {
/// A, row by row.   [ranks x I]
template <class Factors>
Matrix<typename Factors::Scalar> table_a(const Factors& factors) {
  Harness<Factors> harness(factors, 1);
  mole::detail::prepare(factors, harness.call());
  Matrix<typename Factors::Scalar> a(factors.blocks().ranks_down(), factors.in());
  for (Index j = 0; j < a.rows(); ++j)
    mole::detail::add_row(factors, j, typename Factors::Scalar(1), a.view().row(j), harness.scratch());
  return a;
}

template <class T>
void expect_size(FirstFailure& failure, View<T> found, Index rows, Index cols, const char* what) {
  failure.expect(found.rows() == rows && found.cols() == cols, "expected ", what, " [", rows, " x ", cols, "], found [",
                 found.rows(), " x ", found.cols(), "]");
}

template <class Factors>
void expect_tables(FirstFailure& failure, const Factors& factors, const Matrix<typename Factors::Scalar>& a) {
  using T = typename Factors::Scalar;
  Harness<Factors> harness(factors, 1);
  mole::detail::prepare(factors, harness.call());
  const FactorViews<const T> views = factors.factors(harness.scratch());
  expect_size(failure, views.b, factors.blocks().ranks_up(), factors.out(), "B");
  if (views.rank_gate) expect_size(failure, views.rank_gate, 1, views.b.rows(), "a rank gate");
  if constexpr (!StreamedFactorPolicy<Factors>) {
    expect_size(failure, views.a, factors.blocks().ranks_down(), factors.in(), "A");
  } else {
    failure.expect(!views.a, "expected an empty view of an A that is streamed, found one of ", views.a.rows(), " rows");
    for (Index j = 0; j < a.rows() && !failure.failed(); ++j) {
      Matrix<T> row(1, factors.in());
      fill(row.view(), T(0.5));
      factors.add_row(j, T(2), row.elements(), harness.scratch());
      for (Index i = 0; i < factors.in() && !failure.failed(); ++i) {
        const T slack = 8 * std::numeric_limits<T>::epsilon() * (1 + std::abs(a(j, i)));
        failure.expect(std::abs(row(0, i) - (T(0.5) + 2 * a(j, i))) <= slack, "expected add_row() of row ", j,
                       " to add 2 * ", a(j, i), " to 0.5 in column ", i, ", found ", row(0, i));
      }
    }
  }
}

/// project() and project_backward() against plain loops over A.
template <class Execution, class Factors>
void expect_projections(FirstFailure& failure, const Factors& factors, const Matrix<typename Factors::Scalar>& a,
                        bool passes_gradient, Index tokens, std::uint64_t seed) {
  using T = typename Factors::Scalar;
  const double slack = 4 * double(std::numeric_limits<T>::epsilon());
  const auto x = random_matrix<T>(tokens, factors.in(), seed), d_z = random_matrix<T>(tokens, a.rows(), seed + 1),
             before = random_matrix<T>(tokens, factors.in(), seed + 2);
  Matrix<T> z(tokens, a.rows()), expected_z = z, d_x = before, expected_d_x = before;
  fill(z.view(), T(99));  // project overwrites
  Harness<Factors, Execution> harness(factors, tokens);
  mole::detail::prepare(factors, harness.call());
  mole::detail::project<Factors, T>(factors, x.view(), z.view(), harness.call());
  Reference{}.product_nt(x.view(), a.view(), expected_z.view());
  failure.expect(largest_difference(z, expected_z) <= slack * double(factors.in() + 1), tokens,
                 " tokens: expected project() to write x A^T, found a difference of ",
                 largest_difference(z, expected_z));
  mole::detail::project_backward<Factors, T>(factors, d_z.view(), d_x.view(), harness.call());
  if (passes_gradient) Reference{}.product_nn(d_z.view(), a.view(), expected_d_x.view());
  failure.expect(largest_difference(d_x, expected_d_x) <= slack * double(a.rows() + 1), tokens,
                 " tokens: expected project_backward() to add d_z A to d_x, found a difference of ",
                 largest_difference(d_x, expected_d_x));
  const Matrix<T> kept = d_x;
  mole::detail::project_backward<Factors, T>(factors, Matrix<T>(tokens, a.rows()), d_x.view(), harness.call());
  failure.expect(largest_difference(d_x, kept) == 0, tokens, " tokens: expected a d_z of zeros to add nothing, found ",
                 largest_difference(d_x, kept));
}

/// gradient_views() fit A, B and the rank gate; with contract() they are the derivative of <d_a, A> + <d_b, B> + ...
/// in every parameter.
template <class Factors>
void expect_gradients(FirstFailure& failure, Factors factors, std::uint64_t seed) {
  using T = typename Factors::Scalar;
  using Parameters = ParametersOf<Factors>;
  Harness<Factors> harness(factors, 1);
  ScratchOf<Factors>& scratch = harness.scratch();
  mole::detail::prepare(factors, harness.call());
  Parameters frozen;
  const FactorViews<T> none = factors.gradient_views(frozen, scratch);
  failure.expect(!none.a && !none.b && !none.rank_gate, "expected empty views of frozen gradients, found numbers");

  const Index ranks_down = factors.blocks().ranks_down();
  const auto rows_b = factors.factors(scratch).b.rows();
  auto gradients = zeros_like(Parameters(parameters_of(factors)));
  const FactorViews<T> views = factors.gradient_views(gradients, scratch);
  const bool fit_a = views.a.rows() <= ranks_down && (!views.a || views.a.cols() == factors.in());
  const bool fit_b = views.b.rows() <= rows_b && (!views.b || views.b.cols() == factors.out());
  failure.expect(fit_a, "expected a gradient of at most the ", ranks_down, " rows of A and of its ", factors.in(),
                 " columns, found [", views.a.rows(), " x ", views.a.cols(), "]");
  failure.expect(fit_b, "expected a gradient of at most the ", rows_b, " rows of B and of its ", factors.out(),
                 " columns, found [", views.b.rows(), " x ", views.b.cols(), "]");
  if (views.rank_gate) expect_size(failure, views.rank_gate, 1, rows_b, "a gradient of the rank gate");
  if (failure.failed()) return;

  const auto d_a = random_matrix<T>(views.a.rows(), factors.in(), seed),
             d_b = random_matrix<T>(views.b.rows(), factors.out(), seed + 1),
             d_gate = random_matrix<T>(views.rank_gate.rows(), rows_b, seed + 2);
  const auto add = [](const Matrix<T>& from, View<T> to) {
    for (Index r = 0; r < from.rows(); ++r)
      for (Index c = 0; c < from.cols(); ++c) to(r, c) += from(r, c);
  };
  add(d_a, views.a), add(d_b, views.b), add(d_gate, views.rank_gate);
  mole::detail::contract(factors, gradients, harness.call());
  if constexpr (std::is_same_v<T, double>) {
    const auto product = [](const Matrix<T>& weights, View<const T> table) {  // with its last rows
      double sum = 0;
      const Index before = table.rows() - weights.rows();
      for (Index r = 0; r < weights.rows(); ++r)
        for (Index c = 0; c < weights.cols(); ++c) sum += weights(r, c) * table(before + r, c);
      return sum;
    };
    const auto value = [&] {
      mole::detail::prepare(factors, harness.call());
      const FactorViews<const T> now = factors.factors(scratch);
      const Matrix<T> a = d_a.empty() ? Matrix<T>() : table_a(factors);
      return product(d_a, a) + product(d_b, now.b) + product(d_gate, now.rank_gate);
    };
    auto&& parameters = parameters_of(factors);
    Parameters::for_each_tensor(
        [&](std::string_view name, auto& parameter, Matrix<T>& gradient) {
          const View<T> view = parameter.view();
          const double error =
              gradient_error(std::span<double>(view.data(), std::size_t(view.size())), gradient.elements(), value);
          failure.expect(error < gradient_tolerance, "expected the gradient of ", name,
                         " after contract() to be the derivative through A and B, found a difference of ", error);
        },
        parameters, gradients);
  }
}
}  // namespace detail

/// The first law that factors break, in words; "" where they keep them. Give their parameters random values first.
///
///   passes_gradient   false for factors through which x gets no gradient by intention
///
/// factors() have the sizes of blocks(), and an empty A where it is streamed; then, under Execution, project() writes x
/// A^T, project_backward() adds d_z A, and nothing for a d_z of zeros, for 0, 1 and 7 tokens, for the A of add_row();
/// gradient_views() fit, are empty for frozen gradients, and with contract() are the derivative through A and B in
/// every parameter (in double).  O(parameters) products with A for the last, so keep factors small.
///
///     static_assert(mole::FactorPolicy<MyFactors<double>>);
///     assert(mole::laws::broken_factor_law(my_factors) == "");
template <class Execution = Reference, class Factors>
std::string broken_factor_law(const Factors& factors, bool passes_gradient = true, std::uint64_t seed = 71) {
  static_assert(FactorPolicy<Factors>);
  FirstFailure failure("factors from " + std::to_string(factors.in()) + " to " + std::to_string(factors.out()) + ", " +
                       std::to_string(factors.blocks().experts()) + " experts, seed " + std::to_string(seed));
  const auto a = detail::table_a(factors);
  detail::expect_tables(failure, factors, a);
  if (failure.failed()) return failure.text();
  for (Index tokens : {0, 1, 7})
    detail::expect_projections<Execution>(failure, factors, a, passes_gradient, tokens, seed);
  detail::expect_gradients(failure, factors, seed + 3);
  return failure.text();
}

}  // namespace mole::laws

#include "mole/core/macros_on.hpp"
