// SPDX-License-Identifier: MIT
// Kernels that only move numbers: transposition, packing of panels, rows into lanes.
#include "bench/kernels/kernel_case.hpp"
#include "mole/kernel/lanes.hpp"
#include "mole/kernel/panel.hpp"
#include "mole/kernel/transpose.hpp"
#include "tests/support/random_matrix.hpp"

#include <algorithm>

namespace bench {

namespace {

using T = float;
using Arch = xsimd::default_arch;
using mole::Matrix;

Work moved(Index elements) {
  return {0, 0, 2.0 * double(sizeof(T)) * double(elements)};
}

struct Transposition {
  Transposition(Index rows, Index cols) : from(support::random_matrix<T>(rows, cols, 1)), to(cols, rows) {}

  void kernel() {
    mole::kernel::Transpose<Arch, T>{}(from.data(), from.cols(), from.rows(), from.cols(), to.data(), to.cols());
  }
  void plain() {
    for (Index r = 0; r < from.rows(); ++r)
      for (Index c = 0; c < from.cols(); ++c) to(c, r) = from(r, c);
  }
  Work work() const { return moved(from.size()); }

  Matrix<T> from, to;
};

/// A weight w [d x d] passes through one panel, which stays in the first cache, as products without packed weights have
/// it: what counts is reading w.
struct Packing {
  using Panel = mole::kernel::Panel<Arch, T>;

  explicit Packing(Index d) : w(support::random_matrix<T>(d, d, 1)) {}

  /// f(row, rows, column, cols) for every part of w that fills a panel; d is a multiple of both sizes.
  template <class F>
  void for_each_panel(F f) const {
    for (Index column = 0; column < w.cols(); column += Panel::width)
      for (Index row = 0; row < w.rows(); row += Panel::depth)
        f(row, std::min(Panel::depth, w.rows() - row), column, std::min(Panel::width, w.cols() - column));
  }
  Work work() const { return {0, 0, double(sizeof(T)) * double(w.size())}; }

  Matrix<T> w;
  Panel panel;
  std::vector<T> elements = std::vector<T>(std::size_t(Panel::depth * Panel::width));
};

struct StraightPacking : Packing {
  using Packing::Packing;

  void kernel() {
    for_each_panel([&](Index row, Index rows, Index column, Index cols) {
      panel.pack(w.view().row_data(row) + column, w.cols(), rows, cols);
    });
  }
  void plain() {
    for_each_panel([&](Index row, Index rows, Index column, Index cols) {
      for (Index k = 0; k < rows; ++k)
        for (Index j = 0; j < cols; ++j) elements[std::size_t(k * Panel::width + j)] = w(row + k, column + j);
    });
  }
};

struct TurnedPacking : Packing {
  using Packing::Packing;

  void kernel() {
    for_each_panel([&](Index row, Index rows, Index column, Index cols) {
      panel.pack_transposed(w.view().row_data(column) + row, w.cols(), rows, cols);
    });
  }
  void plain() {
    for_each_panel([&](Index row, Index rows, Index column, Index cols) {
      for (Index k = 0; k < rows; ++k)
        for (Index j = 0; j < cols; ++j) elements[std::size_t(k * Panel::width + j)] = w(column + j, row + k);
    });
  }
};

/// Logits of as many tokens as a vector has lanes, there and back.
struct RowsInLanes {
  using Lanes = mole::kernel::Lanes<Arch, T>;

  explicit RowsInLanes(Index experts)
      : logits(support::random_matrix<T>(Lanes::step, experts, 1)),
        back(Lanes::step, experts),
        lanes(std::size_t(experts)) {
    turned.resize(std::size_t(logits.size()));
  }

  void kernel() {
    Lanes::gather(logits.data(), logits.cols(), logits.rows(), logits.cols(), lanes.data());
    Lanes::scatter(lanes.data(), back.rows(), back.cols(), back.data(), back.cols());
  }
  void plain() {
    for (Index c = 0; c < logits.cols(); ++c)
      for (Index r = 0; r < logits.rows(); ++r) turned[std::size_t(c * Lanes::step + r)] = logits(r, c);
    for (Index c = 0; c < back.cols(); ++c)
      for (Index r = 0; r < back.rows(); ++r) back(r, c) = turned[std::size_t(c * Lanes::step + r)];
  }
  Work work() const { return moved(2 * logits.size()); }

  Matrix<T> logits, back;
  std::vector<Lanes::Vector> lanes;
  std::vector<T> turned;
};

}  // namespace

std::vector<KernelCase> layout_cases() {
  std::vector<KernelCase> cases;
  add_cases<Transposition, 2>(cases, "transpose", {"rows", "cols"},
                              {{64, 64}, {64, 768}, {64, 2048}, {768, 768}, {2048, 2048}});
  add_cases<StraightPacking, 1>(cases, "panel/pack", {"d"}, {{768}, {2048}});
  add_cases<TurnedPacking, 1>(cases, "panel/pack_transposed", {"d"}, {{768}, {2048}});
  add_cases<RowsInLanes, 1>(cases, "lanes", {"E"}, {{8}, {64}, {1024}});
  return cases;
}

}  // namespace bench
