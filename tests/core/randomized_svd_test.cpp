// SPDX-License-Identifier: MIT
#include "mole/core/randomized_svd.hpp"

#include "core/decompositions.hpp"
#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/tolerance.hpp"

using namespace mole;
using namespace mole::test;

namespace {

struct CountedProducts {
  const Matrix<double>& m;
  Index calls = 0, most_rows = 0;

  Svd<double> leading(const RandomizedSvdOptions& options, std::uint64_t seed = 1) {
    Rng rng(seed);
    return randomized_svd(
        m.rows(), m.cols(),
        [&](View<const double> x, View<double> y) {
          ++calls, most_rows = std::max(most_rows, x.rows());
          for (Index n = 0; n < x.rows(); ++n)
            for (Index o = 0; o < m.rows(); ++o) {
              y(n, o) = 0;
              for (Index i = 0; i < m.cols(); ++i) y(n, o) += m(o, i) * x(n, i);
            }
        },
        [&](View<const double> y, View<double> x) {
          ++calls;
          for (Index n = 0; n < x.rows(); ++n)
            for (Index i = 0; i < m.cols(); ++i) {
              x(n, i) = 0;
              for (Index o = 0; o < m.rows(); ++o) x(n, i) += m(o, i) * y(n, o);
            }
        },
        options, rng);
  }
};

}  // namespace

TEST_CASE("A matrix of low rank is found exactly, from products alone", "[core]") {
  for (const auto& [rows, cols] : std::vector<std::pair<Index, Index>>{{30, 21}, {21, 30}, {6, 40}, {40, 6}})
    for (const double scale : {1.0, 1e-150, 1e150}) {
      Matrix<double> m = random_of_rank<double>(rows, cols, 5, 9);
      for (double& value : m.elements()) value *= scale;
      CountedProducts products{m};
      const Svd<double> found = products.leading({.rank = 5, .oversampling = 3, .power_iterations = 1});
      CAPTURE(rows, cols, scale);
      CHECK((found.u.cols() == 5 && found.v.cols() == 5 && found.s.size() == 5));
      CHECK(orthonormality_error(found.u) <= 1e-13);
      CHECK(orthonormality_error(found.v) <= 1e-13);
      CHECK(reconstruction_error(m, found.u, found.s, detail::transposed(found.v)) <= 1e-12);
      CHECK(products.calls == 4);
      CHECK(products.most_rows == std::min<Index>(8, std::min(rows, cols)));
    }
}

TEST_CASE("Leading triplets of a full matrix come nearer to the exact ones with each power iteration", "[core]") {
  const auto m = support::random_matrix<double>(40, 25, 3);
  const Svd<double> exact = svd(m);
  double before = 1;
  for (const Index iterations : {0, 2, 8, 30}) {
    CountedProducts products{m};
    const Svd<double> found = products.leading({.rank = 4, .oversampling = 6, .power_iterations = iterations});
    double error = 0;
    for (std::size_t j = 0; j < 4; ++j) {
      CHECK(found.s[j] <= exact.s[j] * (1 + 1e-12));  // a projection has no larger ones
      error = std::max(error, 1 - found.s[j] / exact.s[j]);
    }
    CAPTURE(iterations, error);
    CHECK(error < before);
    before = std::max(error, 1e-13);
  }
  CHECK(before < 1e-6);
}

TEST_CASE("The same generator finds the same bits, and more ranks than there are means all", "[core]") {
  const auto m = support::random_matrix<double>(9, 6, 3);
  CountedProducts products{m};
  const Svd<double> first = products.leading({.rank = 3}), second = products.leading({.rank = 3});
  CHECK(support::same_bits(first.u, second.u));
  CHECK(first.s == second.s);
  const Svd<double> all = products.leading({.rank = 100}), exact = svd(m);
  REQUIRE(all.s.size() == 6);
  for (std::size_t j = 0; j < 6; ++j) CHECK(std::abs(all.s[j] - exact.s[j]) <= 1e-13 * exact.s[0]);
}

TEST_CASE("Randomized decompositions of nothing are nothing; options out of range are refused", "[core]") {
  const Matrix<double> zero(5, 4), none(0, 4);
  CountedProducts of_zero{zero}, of_none{none};
  for (double s : of_zero.leading({.rank = 2}).s) CHECK(s == 0);
  CHECK(of_none.leading({.rank = 2}).s.empty());
  CHECK(code_of([&] { of_zero.leading({.rank = 0}); }) == ErrorCode::option);
  CHECK(code_of([&] { of_zero.leading({.oversampling = -1}); }) == ErrorCode::option);
  CHECK(code_of([&] { of_zero.leading({.power_iterations = -1}); }) == ErrorCode::option);
  Matrix<double> infinite(3, 3);
  infinite(0, 0) = std::numeric_limits<double>::infinity();
  CountedProducts of_infinite{infinite};
  CHECK(code_of([&] { of_infinite.leading({.rank = 1}); }) == ErrorCode::option);
}
