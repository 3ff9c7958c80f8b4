// SPDX-License-Identifier: MIT
#include "mole/factors/sparse_projection.hpp"

#include "core/error_code.hpp"
#include "mole/execution/reference.hpp"
#include "mole/execution/simd.hpp"
#include "mole/execution/thread_pool.hpp"
#include "mole/execution/through_eigen.hpp"
#include "mole/testing/factor_laws.hpp"
#include "support/catch.hpp"
#include "support/guarded_matrix.hpp"
#include "support/random_matrix.hpp"
#include "support/seed.hpp"
#include "support/tolerance.hpp"

#include <numeric>

using namespace mole;
using namespace mole::test;

namespace {

template <class T>
Matrix<T> expanded(const SparseProjection<T>& factors) {
  Matrix<T> a(factors.blocks().ranks_down(), factors.in());
  NoScratch none;
  for (Index j = 0; j < a.rows(); ++j) factors.add_row(j, 1, a.view().row(j), none);
  return a;
}

/// The call of a layer, for factors alone.
template <class Execution>
auto call(const Execution& execution) {
  static NoScratch none;
  static const Pass pass;
  return Call{execution, pass, none};
}

template <class T, class Execution>
void check_equals_dense(const SparseProjection<T>& factors, Index tokens, const Execution& execution, Rng& rng) {
  const Matrix<T> a = expanded(factors);
  const auto x = random_input<T>(tokens, factors.in(), rng, {.padding = 3, .before = 1});
  const auto d_z = random_input<T>(tokens, a.rows(), rng, {.padding = 1});
  auto z = random_output<T>(tokens, a.rows(), rng, {.padding = 2, .before = 1, .after = 1});
  auto d_x = random_output<T>(tokens, factors.in(), rng, {.padding = 1, .after = 1});
  Matrix<T> dense_z(tokens, a.rows()), dense_d_x(tokens, factors.in());
  for (Index n = 0; n < tokens; ++n) std::copy_n(d_x.row(n), factors.in(), dense_d_x.view().row_data(n));
  Reference{}.product_nt(x.view(), a, dense_z.view());
  Reference{}.product_nn(d_z.view(), a, dense_d_x.view());
  factors.project(x.view(), z.view(), call(execution));
  factors.project_backward(d_z.view(), d_x.view(), call(execution));
  CHECK(difference(z.view(), dense_z.view()) <= Tolerance<T>::sum(factors.nonzeros()));
  CHECK(difference(d_x.view(), dense_d_x.view()) <= Tolerance<T>::sum(a.rows()));
  CHECK(z.intact());
  CHECK(d_x.intact());
}

}  // namespace

TEST_CASE("Every row of a sparse projection has exactly p non-zeros at columns that ascend", "[factors]") {
  TestRng rng;
  for (Index in : {1, 3, 16, 33, 100, 768})
    for (Index p : {Index(1), (in + 3) / 4, in}) {
      const SparseProjection<float> factors({.in = in, .out = 2, .experts = 7, .nonzeros = p}, rng);
      const Matrix<float> a = expanded(factors);
      CAPTURE(in, p);
      const Matrix<int> all_columns = factors.projection().columns;
      bool ascend = true;
      for (Index j = 0; j < 7; ++j) {
        const auto row = a.view().row(j);
        CHECK(in - std::count(row.begin(), row.end(), 0.f) == p);
        const auto columns = all_columns.view().row(j);
        ascend &= std::is_sorted(columns.begin(), columns.end()) && columns.front() >= 0 && columns.back() < in;
      }
      CHECK(ascend);
    }
}

TEST_CASE("A sparse projection starts normal with a deviation of one over all ranks, and a B of zeros", "[factors]") {
  Rng rng(1);
  const SparseProjection<double> factors({.in = 2000, .out = 3, .experts = 20, .nonzeros = 500}, rng);
  const auto projection = factors.projection();
  double sum = 0, square = 0, beyond = 0;
  for (double a : projection.values.elements()) sum += a, square += a * a, beyond += std::abs(a) > 0.05;
  CHECK(std::abs(sum / 1e4) < 0.002);
  CHECK(std::abs(square / 1e4 - 0.0025) < 0.00015);
  CHECK(std::abs(beyond / 1e4 - 0.3173) < 0.02);
  CHECK(support::same_bits(factors.parameters().lora_B, Matrix<double>(20, 3)));

  std::vector<double> chosen(2000);  // every column equally often: 5 times of 20, with a deviation of 1.94
  double most = 0;
  for (int i : projection.columns.elements()) most = std::max(most, ++chosen[std::size_t(i)]);
  CHECK(most <= 14);
}

TEMPLATE_TEST_CASE("A sparse projection equals the dense product under every execution", "[factors]", float, double) {
  using T = TestType;
  TestRng rng;
  for (Index in : {1, 3, 16, 33, 100, 768})
    for (Index p : {Index(1), (in + 3) / 4, in})
      for (Index tokens : {0, 1, 7, 64, 65, 200}) {
        const SparseProjection<T> factors({.in = in, .out = 2, .experts = in % 2 ? 11 : 32, .nonzeros = p}, rng);
        CAPTURE(in, p, tokens);
        check_equals_dense(factors, tokens, Reference{}, rng);
        check_equals_dense(factors, tokens, Simd<>{}, rng);
        check_equals_dense(factors, tokens, Simd<kernel::Scalar>{}, rng);
        check_equals_dense(factors, tokens, ThroughEigen{}, rng);
      }
}

TEST_CASE("A sparse projection has the same bits on any number of threads", "[factors][threads]") {
  TestRng rng;
  const SparseProjection<float> factors({.in = 768, .out = 2, .nonzeros = 192}, rng);
  const auto x = support::random_matrix<float>(333, 768, 1), d_z = support::random_matrix<float>(333, 32, 2);
  Matrix<float> z(333, 32), d_x(333, 768);
  factors.project(x, z.view(), call(Simd<>{}));
  factors.project_backward(d_z, d_x.view(), call(Simd<>{}));
  for (int threads : {1, 2, 5}) {
    const Simd execution{ThreadPool(threads)};
    Matrix<float> other_z(333, 32), other_d_x(333, 768);
    factors.project(x, other_z.view(), call(execution));
    factors.project_backward(d_z, other_d_x.view(), call(execution));
    CAPTURE(threads);
    CHECK(support::same_bits(z, other_z));
    CHECK(support::same_bits(d_x, other_d_x));
  }
}

TEST_CASE("Equal generators give equal projections, and another one can be put back", "[factors]") {
  Rng one(4), two(4), three(5);
  const SparseProjection<float>::Options options{.in = 50, .out = 6, .experts = 9, .nonzeros = 7};
  const SparseProjection<float> a(options, one), b(options, two);
  SparseProjection<float> c(options, three);
  CHECK(support::same_bits(expanded(a), expanded(b)));
  CHECK_FALSE(support::same_bits(expanded(a), expanded(c)));
  c.set_projection(a.projection());
  CHECK(support::same_bits(expanded(a), expanded(c)));
  Rng rng(6);
  check_equals_dense(c, 9, Simd<>{}, rng);
}

TEST_CASE("A sparse projection that does not fit is refused, and nothing changes", "[factors]") {
  Rng rng(4);
  SparseProjection<float> factors({.in = 10, .out = 6, .experts = 2, .nonzeros = 3}, rng);
  const Matrix<float> before = expanded(factors);
  const auto good = factors.projection();
  auto a = good;
  const auto code = [&] { return code_of([&] { factors.set_projection(a); }); };
  const auto code_as_state = [&] {
    return code_of([&] {
      factors.for_each_state([&]<class U>(std::string_view, std::span<U> numbers) {
        if constexpr (std::is_same_v<U, int>) std::ranges::copy(a.columns.elements(), numbers.begin());
      });
    });
  };
  for (const auto& columns : {std::array{0, 4, 4}, {0, 4, 1}, {0, 1, 10}, {-1, 4, 5}}) {
    std::ranges::copy(columns, a.columns.view().row(1).begin());
    CHECK(code() == ErrorCode::option);
    CHECK(code_as_state() == ErrorCode::option);
  }
  a = good, a.columns = Matrix<int>(2, 4);
  CHECK(code() == ErrorCode::shape);
  a = good, a.values = Matrix<float>(3, 3);
  CHECK(code() == ErrorCode::shape);
  CHECK(support::same_bits(before, expanded(factors)));
}

TEST_CASE("A sparse projection is state, and what is written there is the projection from then on", "[factors]") {
  Rng one(4), two(5);
  const SparseProjection<float>::Options options{.in = 50, .out = 6, .experts = 19, .nonzeros = 7};
  SparseProjection<float> from(options, one), to(options, two);
  from.set_projection([&] {  // a zero that is stored is one of the p, and a sign of zero is a bit
    auto a = from.projection();
    a.values(0, 0) = 0.0f, a.values(3, 2) = -0.0f;
    return a;
  }());
  std::vector<int> columns;
  std::vector<float> values;
  from.for_each_state([&]<class U>(std::string_view name, std::span<U> numbers) {
    if constexpr (std::is_same_v<U, int>) {
      CHECK(name == "columns_of_A");
      columns.assign(numbers.begin(), numbers.end());
    } else {
      CHECK(name == "values_of_A");
      values.assign(numbers.begin(), numbers.end());
    }
  });
  to.for_each_state([&]<class U>(std::string_view, std::span<U> numbers) {
    if constexpr (std::is_same_v<U, int>)
      std::ranges::copy(columns, numbers.begin());
    else
      std::ranges::copy(values, numbers.begin());
  });
  CHECK(support::same_bits(from.projection().columns, to.projection().columns));
  CHECK(support::same_bits(from.projection().values, to.projection().values));
  const auto x = support::random_matrix<float>(9, 50, 1), d_z = support::random_matrix<float>(9, 19, 2);
  Matrix<float> z(9, 19), other_z(9, 19), d_x(9, 50), other_d_x(9, 50);
  from.project(x, z.view(), call(Simd<>{})), to.project(x, other_z.view(), call(Simd<>{}));
  from.project_backward(d_z, d_x.view(), call(Simd<>{})), to.project_backward(d_z, other_d_x.view(), call(Simd<>{}));
  CHECK(support::same_bits(z, other_z));
  CHECK(support::same_bits(d_x, other_d_x));
}

TEST_CASE("Values of a sparse projection that are written alone are its values from then on, and columns likewise",
          "[factors]") {
  Rng rng(4);
  SparseProjection<float> factors({.in = 50, .out = 6, .experts = 9, .nonzeros = 7}, rng);
  auto expected = factors.projection();
  factors.for_each_state([&]<class U>(std::string_view, std::span<U> numbers) {
    if constexpr (std::is_same_v<U, float>)
      for (float& value : numbers) value *= 2;
  });
  for (float& value : expected.values.elements()) value *= 2;
  CHECK(support::same_bits(factors.projection().values, expected.values));
  CHECK(support::same_bits(factors.projection().columns, expected.columns));
  check_equals_dense(factors, 9, Simd<>{}, rng);

  for (Index j = 0; j < 9; ++j)
    std::iota(expected.columns.view().row(j).begin(), expected.columns.view().row(j).end(), j);
  factors.for_each_state([&]<class U>(std::string_view, std::span<U> numbers) {
    if constexpr (std::is_same_v<U, int>) std::ranges::copy(expected.columns.elements(), numbers.begin());
  });
  CHECK(support::same_bits(factors.projection().values, expected.values));
  CHECK(support::same_bits(factors.projection().columns, expected.columns));
}

TEST_CASE("SparseProjection refuses sizes out of range", "[factors]") {
  Rng rng(3);
  using Factors = SparseProjection<float>;
  CHECK_THROWS_AS(Factors({.in = 0, .out = 6, .nonzeros = 1}, rng), Error);
  CHECK_THROWS_AS(Factors({.in = 5, .out = 0, .nonzeros = 1}, rng), Error);
  CHECK_THROWS_AS(Factors({.in = 5, .out = 6, .experts = 0, .nonzeros = 1}, rng), Error);
  CHECK_THROWS_AS(Factors({.in = 5, .out = 6, .rank = 0, .nonzeros = 1}, rng), Error);
  CHECK_THROWS_AS(Factors({.in = 5, .out = 6}, rng), Error);
  CHECK_THROWS_AS(Factors({.in = 5, .out = 6, .nonzeros = 6}, rng), Error);
}

TEST_CASE("A detached projection hands x no gradient", "[factors]") {
  Rng rng(3);
  const SparseProjection<float> factors({.in = 20, .out = 6, .experts = 4, .nonzeros = 5, .detached = true}, rng);
  const auto d_z = support::random_matrix<float>(3, 4, 1);
  Matrix<float> d_x(3, 20);
  factors.project_backward(d_z, d_x.view(), call(Simd<>{}));
  CHECK(support::same_bits(d_x, Matrix<float>(3, 20)));
}

TEMPLATE_TEST_CASE("A sparse projection keeps the laws of factors, plainly and by vectors", "[factors]", float,
                   double) {
  Rng rng(6);
  for (bool detached : {false, true}) {
    SparseProjection<TestType> factors(
        {.in = 40, .out = 6, .experts = 5, .rank = 4, .nonzeros = 7, .detached = detached}, rng);
    fill_uniform(factors.parameters().lora_B.view(), 1, rng);
    CHECK(laws::broken_factor_law(factors, !detached) == "");
    CHECK(laws::broken_factor_law<Simd<>>(factors, !detached) == "");
  }
}
