// SPDX-License-Identifier: MIT
#include "mole/maps/diagonal_bases.hpp"

#include "core/error_code.hpp"
#include "mole/execution/reference.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

#include <set>

using namespace mole;

namespace {

using Bases = DiagonalBases<double>;

Matrix<double> basis_of(const Bases& bases, Index b, Index columns) {
  Matrix<double> made(bases.options().rank, columns), result(bases.options().rank, columns);
  copy(bases.b(b, columns, made.view(), Reference{}), result.view());
  return result;
}

}  // namespace

TEST_CASE("Bases of a smaller model are the beginning of those of a larger one", "[maps]") {
  for (bool keep : {true, false}) {
    const Bases small({.rank = 3, .small_side = 8, .large_side = 9, .keep = keep, .seed = 7});
    const Bases large({.rank = 3, .small_side = 20, .large_side = 31, .keep = !keep, .seed = 7});
    CHECK(small.options().bases == 3);
    CHECK(large.options().bases == 7);
    for (Index b = 0; b < 3; ++b) CHECK(support::same_bits(basis_of(small, b, 9), basis_of(large, b, 9)));
    Matrix<double> one(3, 8), two(3, 8);
    const View<const double> of_small = small.a(8, one.view(), Reference{}),
                             of_large = large.a(8, two.view(), Reference{});
    for (Index k = 0; k < 3; ++k) CHECK(std::ranges::equal(of_small.row(k), of_large.row(k)));
  }
}

TEST_CASE("Numbers of bases have mean 0 and variance 1, and only three values if ternary", "[maps]") {
  struct Case {
    BasisDistribution distribution;
    double size, share;
  };
  for (const auto& [distribution, size, share] :
       {Case{BasisDistribution::uniform, std::sqrt(3.0), 1}, Case{BasisDistribution::ternary, std::sqrt(3.0), 1.0 / 3},
        Case{BasisDistribution::sparse_ternary, std::sqrt(8.0), 1.0 / 8}}) {
    const Bases bases(
        {.rank = 16, .small_side = 64, .large_side = 2000, .bases = 1, .distribution = distribution, .seed = 1});
    const Matrix<double> made = basis_of(bases, 0, 2000);
    double sum = 0, squares = 0, largest = 0, other_than_zero = 0;
    std::set<double> values;
    for (double number : made.elements()) {
      sum += number, squares += number * number, largest = std::max(largest, std::abs(number));
      other_than_zero += number != 0;
      if (distribution != BasisDistribution::uniform) values.insert(number);
    }
    const double count = double(made.size());
    CHECK(std::abs(sum / count) < 0.02);
    CHECK(std::abs(squares / count - 1) < 0.05);
    CHECK(largest <= size * (1 + 1e-9));
    CHECK(largest > 0.99 * size);
    CHECK(std::abs(other_than_zero / count - share) < 0.01);
    if (distribution != BasisDistribution::uniform) CHECK(values.size() == 3);
  }
}

TEST_CASE("Bases refuse sizes that are none, and matrices that do not fit", "[maps]") {
  const auto code = [](Bases::Options options) { return test::code_of([&] { Bases{options}; }); };
  CHECK(code({.rank = 0, .small_side = 3, .large_side = 3}) == ErrorCode::option);
  CHECK(code({.rank = 1, .small_side = 0, .large_side = 3}) == ErrorCode::option);
  CHECK(code({.rank = 1, .small_side = 4, .large_side = 3}) == ErrorCode::option);
  CHECK(code({.rank = 1, .small_side = 3, .large_side = 3, .bases = -1}) == ErrorCode::option);
  const auto given = [](Index a_rows, Index a_cols, Index b_rows, Index b_cols) {
    return test::code_of([&] { Bases(Matrix<double>(a_rows, a_cols), Matrix<double>(b_rows, b_cols)); });
  };
  CHECK(given(2, 3, 3, 4) == ErrorCode::shape);
  CHECK(given(2, 3, 4, 2) == ErrorCode::shape);
  CHECK(given(0, 0, 0, 0) == ErrorCode::shape);
}

TEST_CASE("Neighboring seeds share no matrix, and other distributions are no other seed", "[maps]") {
  const auto bases = [](std::uint64_t seed, BasisDistribution distribution = BasisDistribution::uniform) {
    return Bases({.rank = 3, .small_side = 8, .large_side = 8, .distribution = distribution, .seed = seed});
  };
  Matrix<double> unused;
  for (std::uint64_t seed : {0u, 1u, 2u, 3u})
    for (std::uint64_t other : {0u, 1u, 2u, 3u}) {
      const Bases one = bases(seed), two = bases(other);
      const Matrix<double> b = basis_of(one, 0, 8);
      CHECK(!std::ranges::equal(b.view().row(0), two.a(8, unused.view(), Reference{}).row(0)));
      CHECK(bases(seed, BasisDistribution::ternary).fingerprint() != two.fingerprint());
    }
}
