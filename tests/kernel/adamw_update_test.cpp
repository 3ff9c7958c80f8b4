// SPDX-License-Identifier: MIT
#include "mole/kernel/adamw_update.hpp"

#include "grid.hpp"
#include "support/catch.hpp"

#include <cmath>

using namespace mole;
using namespace mole::test;

TEMPLATE_TEST_CASE("A step of AdamW equals a plain loop at every edge of a vector", "[kernel]", float, double) {
  using T = TestType;
  TestRng rng;
  const kernel::AdamWUpdate<Arch, T> update{.beta1 = T(0.9),
                                            .rest1 = T(0.1),
                                            .beta2 = T(0.99),
                                            .rest2 = T(0.01),
                                            .rate = T(0.3),
                                            .decay = T(0.02),
                                            .root_scale = T(1.5),
                                            .epsilon = T(0.1)};
  for (Index size : grid<T>())
    for (Index misaligned : {0, 1}) {
      const Placement place{.before = 1 + misaligned, .after = 1};
      auto p = random_output<T>(1, size, rng, place), m = random_output<T>(1, size, rng, place),
           v = random_output<T>(1, size, rng, place);
      for (T& element : v.view().row(0)) element = std::abs(element);
      const auto g = random_input<T>(1, size, rng, {.before = misaligned});
      auto expected_p = p, expected_m = m, expected_v = v;
      for (Index i = 0; i < size; ++i) {
        const long double d = g(0, i);
        const long double first = 0.9L * m(0, i) + 0.1L * d, second = 0.99L * v(0, i) + 0.01L * d * d;
        expected_m(0, i) = T(first);
        expected_v(0, i) = T(second);
        expected_p(0, i) = T(p(0, i) - (0.3L * first / (std::sqrt(second) * 1.5L + 0.1L) + 0.02L * p(0, i)));
      }
      update(p.row(0), g.row(0), m.row(0), v.row(0), size);
      CAPTURE(size, misaligned);
      CHECK(difference(p.view(), expected_p.view()) <= Tolerance<T>::sum(8));
      CHECK(difference(m.view(), expected_m.view()) <= Tolerance<T>::sum(2));
      CHECK(difference(v.view(), expected_v.view()) <= Tolerance<T>::sum(3));
      CHECK((p.intact() && m.intact() && v.intact()));
    }
}
