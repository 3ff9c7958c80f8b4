// SPDX-License-Identifier: MIT
#include "mole/surgery/update_sum.hpp"

#include "core/decompositions.hpp"
#include "support/catch.hpp"
#include "surgery/adapters.hpp"
#include "core/error_code.hpp"

using namespace mole;
using namespace mole::test;

TEST_CASE("A sum of updates multiplies, measures and decomposes as its matrix does", "[surgery]") {
  for (const std::vector<Index>& ranks : {std::vector<Index>{2, 3}, {1}, {8, 9}, {0, 0}, {20}}) {
    const std::vector<double> scales(ranks.size(), 0.5), weights(ranks.size(), -1.5);
    const auto adapters = random_adapters<double>(ranks, scales);
    const UpdateSum sum = UpdateSum::of(weighted(adapters, weights));
    const Matrix<double> dense = update_of(adapters, weights);
    CAPTURE(sum.ranks());
    CHECK(support::largest_difference(sum.dense(), dense) < 1e-13);
    CHECK(std::abs(sum.norm() - support::norm(dense)) < 1e-13 * std::max(1.0, support::norm(dense)));

    const auto x = support::random_matrix<double>(4, adapter_in, 5),
               y = support::random_matrix<double>(4, adapter_out, 6);
    Matrix<double> found_y(4, adapter_out), found_x(4, adapter_in), expected_y = found_y, expected_x = found_x;
    sum.times(x, found_y.view());
    sum.times_transposed(y, found_x.view());
    for (Index n = 0; n < 4; ++n)
      for (Index o = 0; o < adapter_out; ++o)
        for (Index i = 0; i < adapter_in; ++i) {
          expected_y(n, o) += dense(o, i) * x(n, i);
          expected_x(n, i) += dense(o, i) * y(n, o);
        }
    CHECK(support::largest_difference(found_y, expected_y) < 1e-12);
    CHECK(support::largest_difference(found_x, expected_x) < 1e-12);

    const Svd<double> found = sum.svd(), expected = svd(dense);
    CHECK(Index(found.s.size()) == std::min({sum.ranks(), adapter_in, adapter_out}));
    for (std::size_t j = 0; j < found.s.size(); ++j) CHECK(std::abs(found.s[j] - expected.s[j]) < 1e-12);
    CHECK(reconstruction_error(dense, found.u, found.s, mole::detail::transposed(found.v)) < 1e-13);
    CHECK(orthonormality_error(found.u) < 1e-13);
    CHECK(orthonormality_error(found.v) < 1e-13);
  }
}

TEST_CASE("A small error of a merge is measured to its digits, not to half of them", "[surgery]") {
  const auto adapters = random_adapters<double>({4}, {1});
  Adapter<double> changed = adapters[0];
  for (double& value : changed.b.elements()) value *= 1 + 1e-11;
  CHECK(std::abs(mole::detail::relative_error(changed, UpdateSum::of(weighted(adapters, {1}))) / 1e-11 - 1) < 1e-3);
}

TEST_CASE("The error of something against nothing is infinite, of nothing 0", "[surgery]") {
  const auto adapters = random_adapters<double>({2}, {1});
  const UpdateSum nothing = UpdateSum::of(weighted(adapters, {0}));
  CHECK(mole::detail::relative_error(adapters[0], nothing) == std::numeric_limits<double>::infinity());
  const Adapter<double> zero{Matrix<double>(1, adapter_in), Matrix<double>(1, adapter_out)};
  CHECK(mole::detail::relative_error(zero, nothing) == 0);
}

TEST_CASE("A sum of updates refuses matrices of other sizes, no adapter, and ranks that it has not", "[surgery]") {
  UpdateSum sum(4, 3);
  const auto code = [&](Index a_rows, Index a_cols, Index b_rows, Index b_cols) {
    return code_of([&] { sum.add<float>(1, Matrix<float>(a_rows, a_cols), Matrix<float>(b_rows, b_cols)); });
  };
  CHECK(code(2, 5, 2, 3) == ErrorCode::shape);
  CHECK(code(2, 4, 2, 2) == ErrorCode::shape);
  CHECK(code(2, 4, 1, 3) == ErrorCode::shape);
  CHECK(sum.ranks() == 0);
  sum.add<float>(1, Matrix<float>(2, 4), Matrix<float>(2, 3));
  CHECK(sum.ranks() == 2);
  for (const auto& [x_rows, x_cols, y_rows, y_cols] :
       std::vector<std::array<Index, 4>>{{5, 3, 5, 3}, {5, 4, 5, 4}, {5, 4, 4, 3}, {4, 4, 5, 3}}) {
    Matrix<double> x(x_rows, x_cols), y(y_rows, y_cols);
    CHECK(code_of([&] { sum.times(x, y.view()); }) == ErrorCode::shape);
    CHECK(code_of([&] { sum.times_transposed(y, x.view()); }) == ErrorCode::shape);
  }
  CHECK(code_of([&] { sum.norms(3); }) == ErrorCode::option);
  CHECK(code_of([&] { sum.norms(-1); }) == ErrorCode::option);
  CHECK(code_of([] { UpdateSum::of(std::vector<WeightedAdapter<float>>{}); }) == ErrorCode::option);
}
