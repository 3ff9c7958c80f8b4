// SPDX-License-Identifier: MIT
#include "mole/base/half_base.hpp"

#include "support/coded_base_checks.hpp"

using namespace mole;
using namespace mole::test;

TEST_CASE("HalfBase does what every coded base does", "[base]") {
  check_coded_base<HalfBase>();
}

TEST_CASE("HalfBase rounds to the nearest binary16, subnormal numbers included", "[base]") {
  const std::vector<float> numbers{1.0f, 1.00048828125f, 65504.0f, 0x1p-24f, 0x1.8p-25f};
  const HalfBase base(View<const float>(numbers.data(), 1, 5));
  const auto w = decoded(base);
  CHECK(w(0, 1) == 1.0f);  // a tie
  CHECK(w(0, 2) == 65504.0f);
  CHECK(w(0, 3) == 0x1p-24f);
  CHECK(w(0, 4) == 0x1p-24f);
  CHECK(base.bytes() == 10);
}

TEST_CASE("HalfBase takes codes as they are", "[base]") {
  const HalfBase base(ReducedFloatWeight<Half>(1, 2, {0x3c00, 0xc000}));
  CHECK(decoded(base)(0, 0) == 1);
  CHECK(decoded(base)(0, 1) == -2);
}

TEST_CASE("HalfBase names what does not fit", "[base]") {
  CHECK(error_text(ErrorCode::shape, [] {
          ReducedFloatWeight<Half>(2, 2, {1, 2, 3});
        }) == "HalfBase: size of the codes: expected 4, found 3");
  const std::vector<float> numbers{1, 70000};
  CHECK(error_text(ErrorCode::option, [&] { HalfBase(View<const float>(numbers.data(), 2, 1)); }) ==
        "HalfBase: expected numbers that the format can hold, found 70000 in row 1");
}
