// SPDX-License-Identifier: MIT
#include "mole/kernel/panel.hpp"

#include "grid.hpp"
#include "support/catch.hpp"

#include <cstdint>
#include <memory>

using namespace mole;
using namespace mole::test;

namespace {

/// Row k of a panel is `expected(k, j)` in its first `cols` columns and zero behind them.
template <class T, class Expected>
bool holds(const kernel::Panel<Arch, T>& panel, Index rows, Index cols, Expected expected) {
  for (Index k = 0; k < rows; ++k)
    for (Index j = 0; j < kernel::Panel<Arch, T>::width; ++j)
      if (panel.rows()(k)[j] != (j < cols ? expected(k, j) : T(0))) return false;
  return true;
}

}  // namespace

TEMPLATE_TEST_CASE("A panel holds its rows side by side and zeros behind them", "[kernel]", float, double) {
  using T = TestType;
  using Panel = kernel::Panel<Arch, T>;
  TestRng rng;
  // A used panel: whatever lay there before must not shine through.
  const auto panel = std::make_unique<Panel>();
  const auto before = random_input<T>(Panel::depth, Panel::width, rng);
  for (Index rows : {Index(0), Index(1), Index(5), Panel::depth})
    for (Index cols = 0; cols <= Panel::width; ++cols)
      for (Index misaligned : {0, 1}) {
        CAPTURE(rows, cols, misaligned);
        panel->pack(before.row(0), before.view().stride(), Panel::depth, Panel::width);
        const auto source = random_input<T>(rows, cols, rng, {.padding = 3, .before = misaligned});
        panel->pack(source.row(0), source.view().stride(), rows, cols);
        CHECK(holds<T>(*panel, rows, cols, [&](Index k, Index j) { return source(k, j); }));

        panel->pack(before.row(0), before.view().stride(), Panel::depth, Panel::width);
        const auto transposed = random_input<T>(cols, rows, rng, {.padding = 3, .before = misaligned});
        panel->pack_transposed(transposed.row(0), transposed.view().stride(), rows, cols);
        CHECK(holds<T>(*panel, rows, cols, [&](Index k, Index j) { return transposed(j, k); }));
      }
}

TEMPLATE_TEST_CASE("A panel fits the first cache and begins on a vector's alignment", "[kernel]", float, double) {
  using Panel = kernel::Panel<Arch, TestType>;
  CHECK(sizeof(Panel) <= 32768);
  CHECK(Panel::width % kernel::step_of<Arch, TestType> == 0);
  const auto panel = std::make_unique<Panel>();
  CHECK(reinterpret_cast<std::uintptr_t>(panel->rows()(0)) % 64 == 0);
  CHECK(panel->rows()(1) - panel->rows()(0) == Panel::width);
}
