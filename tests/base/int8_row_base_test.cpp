// SPDX-License-Identifier: MIT
#include "mole/base/int8_row_base.hpp"

#include "support/coded_base_checks.hpp"

using namespace mole;
using namespace mole::test;

TEST_CASE("Int8RowBase does what every coded base does", "[base]") {
  check_coded_base<Int8RowBase>();
}

TEST_CASE("Int8RowBase codes a row as round(127 W / SCB), SCB its largest magnitude", "[base]") {
  TestRng rng;
  const auto weight = random_input<float>(5, 200, rng);
  const Int8RowBase base(weight.view());
  const auto w = decoded(base);
  for (Index o = 0; o < 5; ++o) {
    float largest = 0;
    for (Index i = 0; i < 200; ++i) largest = std::max(largest, std::abs(weight(o, i)));
    CHECK(base.code().scb()[std::size_t(o)] == largest);
    for (Index i = 0; i < 200; ++i) {
      REQUIRE(int(base.code().codes()[std::size_t(o * 200 + i)]) ==
              int(std::nearbyint(127.0 * double(weight(o, i)) / double(largest))));
      REQUIRE(std::abs(double(w(o, i)) - double(weight(o, i))) <= 0.5001 * double(largest) / 127);
    }
  }
  CHECK(base.bytes() == 5 * 200 + 2 * 5 * 4);
}

TEST_CASE("Int8RowBase takes the codes and the SCB of a file as they are", "[base]") {
  const Int8RowBase base(Int8RowWeight(2, 3, {127, -64, 0, 1, 2, 3}, {2.54f, 0.0f}));
  CHECK(base.code().scb()[0] == 2.54f);
  CHECK(std::abs(decoded(base)(0, 1) + 1.28f) < 1e-6f);
  CHECK(decoded(base)(1, 2) == 0);
}

TEST_CASE("Int8RowBase takes codes of [I x O], the usual way round", "[base]") {
  const std::vector<std::int8_t> codes{127, 0, -64, 1, 5, 2};  // of the weight [2 x 3] above
  const Int8RowBase base(Int8RowWeight(Transposed{View<const std::int8_t>(codes.data(), 3, 2)}, {2.54f, 1.27f}));
  CHECK(base.out() == 2);
  CHECK(std::abs(decoded(base)(0, 1) + 1.28f) < 1e-6f);
  CHECK(std::abs(decoded(base)(1, 2) - 0.02f) < 1e-6f);
  CHECK(error_text(ErrorCode::shape, [&] {
          Int8RowWeight(Transposed{View<const std::int8_t>(codes.data(), 3, 2)}, {1, 2, 3});
        }) == "Int8RowBase: size of SCB: expected 2, found 3");
}

TEST_CASE("Int8RowBase names what does not fit", "[base]") {
  CHECK(error_text(ErrorCode::shape, [] {
          Int8RowWeight(2, 2, {1, 2, 3, 4}, {1, 2, 3});
        }) == "Int8RowBase: size of SCB: expected 2, found 3");
  CHECK(error_text(ErrorCode::shape, [] {
          Int8RowWeight(2, 2, {1, 2, 3}, {1, 2});
        }) == "Int8BlockBase: size of the codes: expected 4, found 3");
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(error_text(ErrorCode::option, [&] { Int8RowBase(View<const float>(&nan, 1, 1)); }) != "");
}
