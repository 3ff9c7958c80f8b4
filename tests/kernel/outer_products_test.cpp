// SPDX-License-Identifier: MIT
#include "mole/kernel/outer_products.hpp"

#include "grid.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace mole::test;

namespace {

/// One call of the kernel: its sizes and how its operands lie in memory.
struct Shape {
  Index depth, rows, cols;
  bool accumulate = false;
  bool padded = false;       // whole vectors may be read behind the last column of b
  bool gathered = false;     // rows of all operands anywhere
  bool a_by_column = false;  // a_k side by side, or a step apart
  Index misaligned = 0;
};

template <class T>
struct Operands {
  GuardedMatrix<T> a, b, c;  // a_k is column k of `a` if by column, else row k

  Operands(const Shape& s, Rng& rng)
      : a(s.a_by_column ? random_input<T>(s.rows, s.depth, rng, {.padding = 2, .before = s.misaligned})
                        : random_input<T>(s.depth, s.rows, rng, {.padding = 1, .before = s.misaligned})),
        b(random_input<T>(s.depth, s.cols, rng, place_b(s))),
        c(random_output<T>(s.rows, s.cols, rng, {.padding = 3, .before = 1 + s.misaligned, .after = 3})) {}

  static Placement place_b(const Shape& s) {
    constexpr Index step = kernel::step_of<Arch, T>;
    const Index behind = s.padded ? (step - s.cols % step) % step : 0;
    return {.padding = behind, .before = s.misaligned, .after = behind};
  }

  const T* a_at(const Shape& s, Index k, Index row) const { return s.a_by_column ? a.row(row) + k : a.row(k) + row; }

  /// Rows [row, row + rows) and columns [column, column + cols) of `to`, terms [k, k + depth).
  void compute(const Shape& s, Index k, Index depth, Index row, Index rows, Index column, Index cols, bool accumulate,
               GuardedMatrix<T>& to) const {
    if (rows == 0 || depth == 0)
      return run(s, k, depth, rows, column, cols, accumulate, nullptr, to.row(0) + column, to);
    run(s, k, depth, rows, column, cols, accumulate, a_at(s, k, row), to.row(row) + column, to);
  }

 private:
  void run(const Shape& s, Index k, Index depth, Index rows, Index column, Index cols, bool accumulate, const T* a_k,
           T* to, const GuardedMatrix<T>& c_like) const {
    const kernel::Factors<T> factors{a_k, s.a_by_column ? a.view().stride() : 1, s.a_by_column ? 1 : a.view().stride()};
    const kernel::StridedRows<T> to_rows{to, c_like.view().stride()};
    const kernel::OuterProducts<Arch, T> outer;
    if (!s.gathered)
      return outer(factors, kernel::StridedRows<const T>{b.row(k) + column, b.view().stride()}, s.padded, depth, rows,
                   cols, to_rows, accumulate);
    std::vector<const T*> b_rows, a_lines;
    std::vector<T*> c_rows;
    for (Index i = 0; i < depth; ++i) b_rows.push_back(b.row(k + i) + column);
    for (Index i = 0; i < rows; ++i) c_rows.push_back(to_rows(i));
    const kernel::GatheredRows<const T> gathered_b{b_rows.data()};
    const kernel::GatheredRows<T> gathered_c{c_rows.data()};
    // Rows of a, or columns of a, that lie anywhere: every second of each is a copy elsewhere.
    std::vector<std::vector<T>> copies;
    const Index lines = s.a_by_column ? rows : depth, length = s.a_by_column ? depth : rows;
    for (Index i = 0; i < lines; ++i) {
      const T* const line = length > 0 ? a_k + i * a.view().stride() : nullptr;
      copies.emplace_back(line, line + length);
      a_lines.push_back(i % 2 == 0 ? line : copies.back().data());
    }
    if (s.a_by_column)
      outer(kernel::GatheredFactors<T>{a_lines.data(), 0}, gathered_b, s.padded, depth, rows, cols, gathered_c,
            accumulate);
    else
      outer(kernel::FactorColumns<T>{a_lines.data()}, gathered_b, s.padded, depth, rows, cols, gathered_c, accumulate);
  }
};

template <class T>
void equals_a_plain_loop(const Shape& s, Rng& rng) {
  Operands<T> operands(s, rng);
  GuardedMatrix<T> expected = operands.c;
  for (Index i = 0; i < s.rows; ++i)
    for (Index j = 0; j < s.cols; ++j) {
      long double sum = s.accumulate ? expected(i, j) : T(0);
      for (Index k = 0; k < s.depth; ++k) sum += static_cast<long double>(*operands.a_at(s, k, i)) * operands.b(k, j);
      expected(i, j) = T(sum);
    }
  operands.compute(s, 0, s.depth, 0, s.rows, 0, s.cols, s.accumulate, operands.c);
  CAPTURE(s.depth, s.rows, s.cols, s.accumulate, s.padded, s.gathered, s.a_by_column, s.misaligned);
  CHECK(difference(operands.c.view(), expected.view()) <= Tolerance<T>::sum(s.depth + 1));
  CHECK(operands.c.intact());
}

}  // namespace

TEMPLATE_TEST_CASE("Outer products equal a plain loop at every edge of their tiles", "[kernel]", float, double) {
  TestRng rng;
  for (Index rows = 0; rows <= 13; ++rows)
    for (Index cols : grid<TestType>())
      for (Index depth : {0, 1, 5})
        for (bool accumulate : {false, true})
          for (bool padded : {false, true})
            for (bool gathered : {false, true})
              for (bool a_by_column : {false, true})
                for (Index misaligned : {0, 1})
                  equals_a_plain_loop<TestType>(
                      {depth, rows, cols, accumulate, padded, gathered, a_by_column, misaligned}, rng);
}

TEMPLATE_TEST_CASE("Outer products have the same bits however the result is split among calls", "[kernel]", float,
                   double) {
  using T = TestType;
  TestRng rng;
  const Index step = kernel::step_of<Arch, T>;
  for (bool gathered : {false, true}) {
    const Shape s{.depth = 7, .rows = 13, .cols = 5 * step + 2, .gathered = gathered};
    Operands<T> operands(s, rng);
    operands.compute(s, 0, s.depth, 0, s.rows, 0, s.cols, false, operands.c);
    for (Index row = 0; row <= s.rows; ++row)
      for (Index column : {Index(0), Index(1), step - 1, step, 2 * step + 1, 4 * step, s.cols}) {
        GuardedMatrix<T> pieces(s.rows, s.cols, T(0));
        operands.compute(s, 0, s.depth, 0, row, 0, column, false, pieces);
        operands.compute(s, 0, s.depth, 0, row, column, s.cols - column, false, pieces);
        if (row < s.rows) {
          operands.compute(s, 0, s.depth, row, s.rows - row, 0, column, false, pieces);
          operands.compute(s, 0, s.depth, row, s.rows - row, column, s.cols - column, false, pieces);
        }
        CAPTURE(gathered, row, column);
        CHECK(difference(operands.c.view(), pieces.view()) == 0);
      }
  }
}

TEMPLATE_TEST_CASE("Outer products have the same bits however the sum is split among calls", "[kernel]", float,
                   double) {
  using T = TestType;
  TestRng rng;
  const Shape s{.depth = 7, .rows = 13, .cols = 5 * kernel::step_of<Arch, T> + 2};
  Operands<T> operands(s, rng);
  operands.compute(s, 0, s.depth, 0, s.rows, 0, s.cols, false, operands.c);
  for (Index k = 1; k < s.depth; ++k) {
    GuardedMatrix<T> pieces(s.rows, s.cols, T(0));
    operands.compute(s, 0, k, 0, s.rows, 0, s.cols, false, pieces);
    operands.compute(s, k, s.depth - k, 0, s.rows, 0, s.cols, true, pieces);
    CAPTURE(k);
    CHECK(difference(operands.c.view(), pieces.view()) == 0);
  }
}
