// SPDX-License-Identifier: MIT
#include "mole/method/oft.hpp"

#include "method/method_checks.hpp"
#include "mole/surgery/merge.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("oft turns the input before the weight; the bias stays", "[method]") {
  Rng rng(1);
  auto layer = oft({.block = 11, .form = RotationForm::cayley}, weight, DenseBase{weight, bias}, rng);
  fill_uniform(layer.experts().parameters().oft_R.view(), 0.2, rng);
  Matrix<double> merged = weight, zero(1, 11), y(1, 13);
  merge_into(layer, merged.view());
  for (Index o = 0; o < 13; ++o) {  // a rotation keeps the length of a row
    double before = 0, after = 0;
    for (Index i = 0; i < 11; ++i) before += weight(o, i) * weight(o, i), after += merged(o, i) * merged(o, i);
    CHECK(after == Approx(before).epsilon(1e-12));
  }
  CHECK(support::same_bits(support::output(layer, zero), bias));
  CHECK(gradient_error(layer) < 1e-7);
}
