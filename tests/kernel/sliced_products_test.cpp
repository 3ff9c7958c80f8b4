// SPDX-License-Identifier: MIT
#include "mole/kernel/sliced_products.hpp"

#include "grid.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace mole;
using namespace mole::test;

namespace {

/// A sparse matrix [rows x cols], row by row; a share of its elements is there, none of them 0.
template <class T>
struct RandomRows {
  Index rows, cols;
  std::vector<int> begin{0}, column;
  std::vector<T> value;

  RandomRows(Index rows_, Index cols_, double share, Rng& rng) : rows(rows_), cols(cols_) {
    for (Index r = 0; r < rows; ++r) {
      for (Index c = 0; c < cols; ++c)
        if (unit_interval(rng()) < share) {
          column.push_back(int(c));
          value.push_back(T(unit_interval(rng()) + 0.1));
        }
      begin.push_back(int(column.size()));
    }
  }

  kernel::SlicedRows<T> sliced() const { return {cols, begin, column, value}; }

  /// f(row, column, value)
  template <class F>
  void for_each(F f) const {
    for (Index r = 0; r < rows; ++r)
      for (int k = begin[std::size_t(r)]; k < begin[std::size_t(r) + 1]; ++k)
        f(r, Index(column[std::size_t(k)]), value[std::size_t(k)]);
  }
};

template <class T>
void compute(const kernel::SlicedRows<T>& a, View<const T> x, View<T> out, bool accumulate) {
  kernel::SlicedProducts<Arch, T>{}(a, x.data(), x.stride(), x.rows(), out.data(), out.stride(), accumulate);
}

}  // namespace

TEMPLATE_TEST_CASE("Slices hold every element of every row in the order of its columns", "[kernel]", float, double) {
  using T = TestType;
  constexpr Index lanes = kernel::SlicedRows<T>::lanes;
  TestRng rng;
  for (Index rows : {Index(0), Index(1), lanes, 2 * lanes + 3})
    for (Index cols : {Index(1), lanes - 1, lanes, 2 * lanes, 2 * lanes + 1, 7 * lanes + 5})
      for (double share : {0.0, 0.25, 1.0}) {
        const RandomRows<T> expected(rows, cols, share, rng);
        const auto a = expected.sliced();
        CAPTURE(rows, cols, share);
        std::vector<std::vector<std::pair<int, T>>> found(std::size_t(rows + lanes));
        bool near = true;
        Index slot = 0;
        for (Index slice = 0; slice * lanes < rows; ++slice)
          for (Index w = 0; w < a.strides(); ++w)
            for (int k = a.count()[slice * a.strides() + w]; k > 0; --k, ++slot)
              for (Index lane = 0; lane < lanes; ++lane) {
                const int column = a.column()[slot * lanes + lane];
                const T value = a.value()[slot * lanes + lane];
                if (column == a.padding) {
                  near &= value == 0;
                  continue;
                }
                near &= column >= w * lanes && column < std::min(cols, (w + 2) * lanes);
                found[std::size_t(slice * lanes + lane)].push_back({column, value});
              }
        CHECK(near);
        CHECK(slot == a.slots());
        std::vector<std::vector<std::pair<int, T>>> wanted(found.size());
        expected.for_each([&](Index r, Index c, T value) { wanted[std::size_t(r)].push_back({int(c), value}); });
        CHECK(found == wanted);
        for (Index r = 0; r < rows; ++r) {
          std::vector<std::pair<int, T>> row;
          a.for_each(r, [&](Index column, T value) { row.push_back({int(column), value}); });
          CHECK(row == wanted[std::size_t(r)]);
        }
      }
}

TEMPLATE_TEST_CASE("Sliced products equal a plain loop at every edge of their tiles", "[kernel]", float, double) {
  using T = TestType;
  constexpr Index lanes = kernel::SlicedRows<T>::lanes;
  TestRng rng;
  for (Index cols : {Index(1), lanes - 1, lanes, lanes + 1, 3 * lanes + 2, 8 * lanes + 3})
    for (Index rows : {Index(0), Index(1), lanes, lanes + 1, 3 * lanes + 2})
      for (Index tokens : grid<T>())
        for (Index misaligned : {0, 1})
          for (bool accumulate : {false, true}) {
            const RandomRows<T> a(rows, cols, misaligned ? 0.25 : 0.7, rng);
            const auto x = random_input<T>(tokens, cols, rng, {.padding = 3, .before = misaligned});
            auto out = random_output<T>(tokens, rows, rng, {.padding = 2, .before = misaligned, .after = 1});
            Matrix<double> plain(tokens, rows);
            for (Index n = 0; n < tokens; ++n) {
              for (Index r = 0; accumulate && r < rows; ++r) plain(n, r) = double(out(n, r));
              a.for_each([&](Index r, Index c, T value) { plain(n, r) += double(value) * double(x(n, c)); });
            }
            compute<T>(a.sliced(), x.view(), out.view(), accumulate);
            CAPTURE(cols, rows, tokens, misaligned, accumulate);
            CHECK(difference(out.view(), plain.view()) <= Tolerance<T>::sum(cols + 1));
            CHECK(out.intact());
          }
}

TEMPLATE_TEST_CASE("A sliced product has the same bits whatever tokens are computed together", "[kernel]", float,
                   double) {
  using T = TestType;
  TestRng rng;
  const Index tokens = 8 * kernel::step_of<Arch, T> + 3, cols = 77, rows = 37;
  const auto a = RandomRows<T>(rows, cols, 0.25, rng).sliced();
  const auto x = random_input<T>(tokens, cols, rng);
  GuardedMatrix<T> whole(tokens, rows, 0);
  compute<T>(a, x.view(), whole.view(), false);
  for (Index some : {1, 2, 3, 5, 8, 15, 33}) {
    GuardedMatrix<T> pieces(tokens, rows, 0);
    for (Index n = 0; n < tokens; n += some)
      compute<T>(a, x.view().middle_rows(n, std::min(some, tokens - n)),
                 pieces.view().middle_rows(n, std::min(some, tokens - n)), false);
    CAPTURE(some);
    CHECK(support::same_bits(whole.view(), pieces.view()));
  }
}

TEMPLATE_TEST_CASE("A look-up finds the elements of two vectors side by side", "[kernel]", float, double) {
  if constexpr (kernel::can_look_up<Arch, TestType>) {
    using Vector = kernel::Vector<Arch, TestType>;
    constexpr Index step = kernel::step_of<Arch, TestType>;
    GuardedMatrix<TestType> table(1, 2 * step, TestType(0)), found(1, step, TestType(0));
    GuardedMatrix<int> index(1, step, 0);
    for (Index i = 0; i < 2 * step; ++i) table(0, i) = TestType(i + 1);
    for (Index i = 0; i < step; ++i) index(0, i) = int(7 * i + 6 * step);
    look_up(Vector::load_unaligned(table.row(0)), Vector::load_unaligned(table.row(0) + step), index.row(0),
            kernel::Tag<Arch>())
        .store_unaligned(found.row(0));
    for (Index i = 0; i < step; ++i) CHECK(found(0, i) == table(0, index(0, i) % (2 * step)));
  } else {
    SUCCEED("no look-ups in this instruction set");
  }
}
