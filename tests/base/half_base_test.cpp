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

TEST_CASE("HalfBase borrows codes that stay, and computes from them what a copy does, to the bit", "[base]") {
  std::vector<std::uint16_t> codes;
  for (int i = 0; i < 70 * 33; ++i) codes.push_back(std::uint16_t(0x3000 + 37 * i % 0x0c00));
  const View<const std::uint16_t> view(codes.data(), 70, 33);
  const HalfBase borrowed{ReducedFloatWeight<Half>(view)}, owned(ReducedFloatWeight<Half>(70, 33, codes));
  CHECK(borrowed.code().codes().data() == codes.data());
  const HalfBase copy = borrowed;
  CHECK(copy.code().codes().data() == codes.data());
  static_assert(!std::is_constructible_v<ReducedFloatWeight<Half>, Matrix<std::uint16_t>>);
  CHECK(std::ranges::equal(decoded(borrowed).elements(), decoded(owned).elements()));
  CHECK(borrowed.bytes() == owned.bytes());

  HalfBase merged = borrowed;
  merged.merge(Matrix<float>(70, 33), LossyMerge::allowed);
  CHECK(merged.code().codes().data() != codes.data());  // a file is not written to
  CHECK(std::ranges::equal(merged.code().codes(), codes));
  CHECK_THROWS_AS(ReducedFloatWeight<Half>(View<const std::uint16_t>(codes.data(), 5, 30, 33)), Error);
  CHECK(ReducedFloatWeight<Half>(View<const std::uint16_t>()).rows() == 0);
}

TEST_CASE("HalfBase names what does not fit", "[base]") {
  CHECK(error_text(ErrorCode::shape, [] {
          ReducedFloatWeight<Half>(2, 2, {1, 2, 3});
        }) == "HalfBase: size of the codes: expected 4, found 3");
  const std::vector<float> numbers{1, 70000};
  CHECK(error_text(ErrorCode::option, [&] { HalfBase(View<const float>(numbers.data(), 2, 1)); }) ==
        "HalfBase: expected numbers that the format can hold, found 70000 in row 1");
}
