// SPDX-License-Identifier: MIT
#include "mole/base/no_base.hpp"

#include "mole/testing/base_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

TEST_CASE("NoBase keeps the laws of bases and gives zeros", "[base]") {
  const mole::NoBase<float> base(4, 3);
  CHECK(mole::laws::broken_base_law(base) == "");
  CHECK(mole::laws::broken_affine_base_law(base) == "");
  const auto y = mole::laws::output_of(base, support::random_matrix<float>(5, 4, 1));
  CHECK(support::same_bits(y, mole::Matrix<float>(5, 3)));
}
