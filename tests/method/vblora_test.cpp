// SPDX-License-Identifier: MIT
#include "mole/method/vblora.hpp"

#include "method/method_checks.hpp"
#include "mole/factors/offline_factors.hpp"
#include "mole/surgery/merge.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("vblora is the LoRA of its mixed vectors, without a scale", "[method]") {
  Rng rng(1);
  const auto square = support::random_matrix<double>(12, 8, 1), x = support::random_matrix<double>(5, 8, 2);
  const auto bank =
      std::make_shared<VectorBank<double>>(VectorBank<double>::Options{.vectors = 6, .length = 4, .bound = 1}, rng);
  auto layer = vblora({.rank = 3}, bank, DenseBase{square}, rng);
  detail::OfflineFactors offline(layer.experts().factors());
  const auto f = offline.views();
  const auto y = support::output(layer, x);
  for (Index n = 0; n < 5; ++n)
    for (Index o = 0; o < 12; ++o) {
      double expected = 0;
      for (Index i = 0; i < 8; ++i) {
        double delta = square(o, i);
        for (Index j = 0; j < 3; ++j) delta += f.b(j, o) * f.a(j, i);
        expected += delta * x(n, i);
      }
      CHECK(std::abs(y(n, o) - expected) < 1e-12);
    }
  CHECK(gradient_error(layer) < 1e-8);
  CHECK(can_merge(layer));
}
