// SPDX-License-Identifier: MIT
#include "mole/method/lokr.hpp"

#include "method/method_checks.hpp"
#include "mole/surgery/merge.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("lokr adds a Kronecker product, over its rank even where nothing is of that rank", "[method]") {
  Rng rng(1);
  const auto square = support::random_matrix<double>(6, 4, 1), x = support::random_matrix<double>(5, 4, 2);
  auto layer = support::with_random_b(lokr({.rank = 4, .alpha = 8}, DenseBase{square}, rng));
  const auto& p = layer.experts().parameters();
  REQUIRE(p.lokr_w1.rows() == 2);  // 6 = 2 * 3, 4 = 2 * 2
  REQUIRE(p.lokr_w2.rows() == 3);
  const auto y = support::output(layer, x);
  for (Index n = 0; n < 5; ++n)
    for (Index o = 0; o < 6; ++o) {
      double expected = 0;
      for (Index i = 0; i < 4; ++i)
        expected += (square(o, i) + 2 * p.lokr_w1(o / 3, i / 2) * p.lokr_w2(o % 3, i % 2)) * x(n, i);
      CHECK(std::abs(y(n, o) - expected) < 1e-12);
    }
  CHECK(gradient_error(layer) < 1e-8);
  CHECK(can_merge(layer));
}

TEST_CASE("A fresh lokr leaves the base as it is, whatever is a product", "[method]") {
  Rng rng(1);
  for (bool both : {false, true}) {
    const auto layer = lokr({.rank = 1, .decompose_both = both}, DenseBase{weight}, rng);
    Matrix<double> delta(13, 11);
    layer.experts().add_delta(0, 1, delta.view());
    CHECK(support::same_bits(delta, Matrix<double>(13, 11)));
    CHECK(layer.experts().scale()[0] == 8);
  }
}
