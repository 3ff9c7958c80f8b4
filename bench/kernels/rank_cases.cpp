// SPDX-License-Identifier: MIT
// What experts of few ranks compute: outer products over gathered rows, sums of a token's own rows, products with a
// sparse A.
#include "bench/kernels/kernel_case.hpp"
#include "mole/kernel/outer_products.hpp"
#include "mole/kernel/row_sums.hpp"
#include "mole/kernel/sliced_products.hpp"
#include "tests/support/random_matrix.hpp"

namespace bench {

namespace {

using T = float;
using Arch = xsimd::default_arch;
using mole::Matrix;
using Outer = mole::kernel::OuterProducts<Arch, T>;

/// The tokens of one expert, every other row of a batch: x or y [T x d], h [T x r], a or b [r x d].
struct Ranks {
  Ranks(Index tokens, Index rank, Index d)
      : batch(support::random_matrix<T>(2 * tokens, d, 1)),
        h(support::random_matrix<T>(tokens, rank, 2)),
        table(rank, d) {
    mole::Rng rng(3);
    mole::fill_uniform(table.view(), 1, rng);
    for (Index n = 0; n < tokens; ++n) {
      rows.push_back(batch.view().row_data(2 * n));
      factors.push_back(h.view().row_data(n));
    }
  }

  double flops() const { return 2.0 * double(h.size()) * double(table.cols()); }
  /// The work if each matrix is read once, and a result that is added to, of so many elements, once more.
  Work work_adding_to(Index elements) const {
    return {0, flops(), double(sizeof(T)) * double(numbers() + h.size() + table.size() + elements),
            double(sizeof(T)) * double(elements)};
  }
  Index numbers() const { return h.rows() * batch.cols(); }

  Matrix<T> batch, h, table;
  std::vector<T*> rows;
  std::vector<const T*> factors;
};

/// y_n += h_n B
struct UpProjection : Ranks {
  using Ranks::Ranks;

  void kernel() {
    Outer{}(mole::kernel::GatheredFactors<T>{factors.data()},
            mole::kernel::StridedRows<const T>{table.data(), table.cols()}, false, table.rows(), h.rows(), table.cols(),
            mole::kernel::GatheredRows<T>{rows.data()}, true);
  }
  void plain() {
    for (std::size_t n = 0; n < rows.size(); ++n)
      for (Index j = 0; j < table.rows(); ++j)
        for (Index o = 0; o < table.cols(); ++o) rows[n][o] += factors[n][j] * table(j, o);
  }
  Work work() const { return work_adding_to(numbers()); }
};

/// d_A += h^T x
struct RankGradient : Ranks {
  using Ranks::Ranks;

  void kernel() {
    Outer{}(mole::kernel::FactorColumns<T>{factors.data()}, mole::kernel::GatheredRows<const T>{rows.data()}, false,
            h.rows(), table.rows(), table.cols(), mole::kernel::StridedRows<T>{table.data(), table.cols()}, true);
  }
  void plain() {
    for (std::size_t n = 0; n < rows.size(); ++n)
      for (Index j = 0; j < table.rows(); ++j)
        for (Index i = 0; i < table.cols(); ++i) table(j, i) += factors[n][j] * rows[n][i];
  }
  Work work() const { return work_adding_to(table.size()); }
};

/// y += sum of k gathered rows of B times h: rank-wise experts of one token.
struct TokenRanks {
  TokenRanks(Index chosen, Index ranks, Index d)
      : h(support::random_matrix<T>(1, chosen, 1)),
        y(support::random_matrix<T>(1, d, 2)),
        table(support::random_matrix<T>(ranks, d, 3)) {
    for (Index j = 0; j < chosen; ++j) rows.push_back(table.view().row_data(j * (ranks / chosen)));
  }

  void kernel() { mole::kernel::RowSums<Arch, T>{}(h.data(), rows.data(), h.size(), y.cols(), y.data()); }
  void plain() {
    for (std::size_t j = 0; j < rows.size(); ++j)
      for (Index o = 0; o < y.cols(); ++o) y(0, o) += h(0, Index(j)) * rows[j][o];
  }
  Work work() const {
    return {0, 2.0 * double(h.size()) * double(y.size()), double(sizeof(T)) * double((h.size() + 2) * y.size()),
            double(sizeof(T)) * double(y.size())};
  }

  Matrix<T> h, y, table;
  std::vector<const T*> rows;
};

/// out = x a^T for FlyLoRA's A: 32 rows, a quarter of each not 0.
struct SparseProducts {
  static constexpr Index rows = 32;

  SparseProducts(Index tokens, Index d) : x(support::random_matrix<T>(tokens, d, 1)), out(tokens, rows) {
    mole::Rng rng(2);
    for (Index r = 0; r < rows; ++r) {
      for (Index c = 0; c < d; ++c)
        if (rng() % 4 == 0) {
          column.push_back(int(c));
          value.push_back(T(mole::unit_interval(rng()) + 0.1));
        }
      begin.push_back(int(column.size()));
    }
    sliced = {d, begin, column, value};
  }

  void kernel() {
    mole::kernel::SlicedProducts<Arch, T>{}(sliced, x.data(), x.cols(), x.rows(), out.data(), rows, false);
  }
  void plain() {
    for (Index n = 0; n < x.rows(); ++n)
      for (std::size_t r = 0; r < std::size_t(rows); ++r) {
        T sum = 0;
        for (auto at = std::size_t(begin[r]); at < std::size_t(begin[r + 1]); ++at) sum += value[at] * x(n, column[at]);
        out(n, Index(r)) = sum;
      }
  }
  /// A number of A and where it is are two numbers of four bytes.
  Work work() const {
    return {0, 2.0 * double(x.rows()) * double(value.size()),
            double(sizeof(T)) * double(x.size() + out.size() + 2 * Index(value.size()))};
  }

  Matrix<T> x, out;
  std::vector<int> begin{0}, column;
  std::vector<T> value;
  mole::kernel::SlicedRows<T> sliced;
};

}  // namespace

std::vector<KernelCase> rank_cases() {
  std::vector<KernelCase> cases;
  const std::vector<std::array<Index, 3>> sizes{{16, 8, 768},  {64, 8, 768},  {64, 16, 768},
                                                {16, 8, 2048}, {64, 8, 2048}, {64, 16, 2048}};
  add_cases<UpProjection, 3>(cases, "outer_products/up", {"T", "r", "d"}, sizes);
  add_cases<RankGradient, 3>(cases, "outer_products/gradient", {"T", "r", "d"}, sizes);
  add_cases<TokenRanks, 3>(cases, "row_sums", {"k", "R", "d"},
                           {{8, 64, 768}, {8, 1024, 768}, {8, 64, 2048}, {8, 1024, 2048}});
  add_cases<SparseProducts, 2>(cases, "sliced_products", {"T", "d"},
                               {{1, 768}, {16, 768}, {512, 768}, {1, 2048}, {16, 2048}, {512, 2048}});
  return cases;
}

}  // namespace bench
