// SPDX-License-Identifier: MIT
#include "mole/kernel/dot_products.hpp"

#include "grid.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace mole::test;

namespace {

template <class T>
GuardedMatrix<T> plain(const GuardedMatrix<T>& x, const GuardedMatrix<T>& w) {
  GuardedMatrix<T> out(x.view().rows(), w.view().rows(), T(0));
  for (Index i = 0; i < x.view().rows(); ++i)
    for (Index j = 0; j < w.view().rows(); ++j) {
      long double sum = 0;
      for (Index k = 0; k < x.view().cols(); ++k) sum += static_cast<long double>(x(i, k)) * w(j, k);
      out(i, j) = T(sum);
    }
  return out;
}

template <class T>
void compute(const GuardedMatrix<T>& x, Index first_x, Index m, const GuardedMatrix<T>& w, Index first_w, Index n,
             GuardedMatrix<T>& out) {
  std::vector<const T*> in;
  std::vector<T*> to;
  for (Index i = 0; i < m; ++i) {
    in.push_back(x.row(first_x + i));
    to.push_back(out.row(first_x + i) + first_w);
  }
  kernel::DotProducts<Arch, T>{}(in.data(), m, w.row(first_w), w.view().stride(), n, x.view().cols(), to.data());
}

}  // namespace

TEMPLATE_TEST_CASE("Dot products equal a plain loop at every edge of their tiles", "[kernel]", float, double) {
  using T = TestType;
  TestRng rng;
  for (Index length : grid<T>())
    for (Index misaligned : {0, 1})
      for (Index padding : {0, 3})
        for (Index m = 0; m <= 9; ++m)
          for (Index n = 0; n <= 9; ++n) {
            const auto x = random_input<T>(m, length, rng, {.padding = 5, .before = misaligned});
            const auto w = random_input<T>(n, length, rng, {.padding = padding, .before = misaligned});
            auto out = random_output<T>(m, n, rng, {.padding = 2, .before = 1, .after = 1});
            compute(x, 0, m, w, 0, n, out);
            CAPTURE(length, misaligned, padding, m, n);
            const auto expected = plain(x, w);
            CHECK(difference(out.view(), expected.view()) <= Tolerance<T>::sum(length));
            CHECK(out.intact());
          }
}

TEMPLATE_TEST_CASE("A dot product has the same bits however rows are split among calls", "[kernel]", float, double) {
  using T = TestType;
  TestRng rng;
  const Index m = 9, n = 9, length = 8 * kernel::step_of<Arch, T> + 3;
  const auto x = random_input<T>(m, length, rng), w = random_input<T>(n, length, rng);
  auto whole = random_output<T>(m, n, rng);
  compute(x, 0, m, w, 0, n, whole);
  for (Index i = 0; i <= m; ++i)
    for (Index j = 0; j <= n; ++j) {
      auto pieces = random_output<T>(m, n, rng);
      compute(x, 0, i, w, 0, j, pieces);
      compute(x, i, m - i, w, 0, j, pieces);
      compute(x, 0, i, w, j, n - j, pieces);
      compute(x, i, m - i, w, j, n - j, pieces);
      CAPTURE(i, j);
      CHECK(difference(whole.view(), pieces.view()) == 0);
    }
}
