// SPDX-License-Identifier: MIT
#include "mole/method/vblora.hpp"

#include "method/method_checks.hpp"
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
  CHECK(difference_from_lora(layer, x, 1) < 1e-12);
  CHECK(gradient_error(layer) < 1e-8);
  CHECK(can_merge(layer));
}
