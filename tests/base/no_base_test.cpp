// SPDX-License-Identifier: MIT
#include "mole/base/no_base.hpp"

#include "laws/base_laws.hpp"

TEST_CASE("NoBase keeps the laws of bases and gives zeros", "[base]") {
  const mole::NoBase<float> base(4, 3);
  laws::check_base(base);
  laws::check_affine_base(base);
  const auto y = laws::detail::output_of(base, support::random_matrix<float>(5, 4, 1));
  CHECK(support::same_bits(y, mole::Matrix<float>(5, 3)));
}
