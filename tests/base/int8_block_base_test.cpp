// SPDX-License-Identifier: MIT
#include "mole/base/int8_block_base.hpp"

#include "support/coded_base_checks.hpp"

using namespace mole;
using namespace mole::test;

TEST_CASE("Int8BlockBase does what every coded base does", "[base]") {
  check_coded_base<Int8BlockBase>();
  check_coded_base<Int8BlockBase>({.block = 32});
}

TEST_CASE("Int8BlockBase scales every block of a row by its largest magnitude", "[base]") {
  Matrix<float> weight(2, 100);
  weight(0, 3) = -2, weight(0, 4) = 1, weight(0, 64) = 254;
  const Int8BlockBase base(weight);
  CHECK(base.code().scales().size() == 4);  // 64 and 36 a row
  CHECK(base.code().scales()[0] == 2.0f / 127);
  CHECK(base.code().scales()[1] == 2.0f);
  CHECK(base.code().scales()[2] == 0.0f);
  CHECK(int(base.code().codes()[3]) == -127);
  CHECK(int(base.code().codes()[4]) == 64);  // 63.5, ties to even
  CHECK(int(base.code().codes()[64]) == 127);
  CHECK(decoded(base)(0, 64) == 254);
  CHECK(decoded(base)(1, 0) == 0);
  CHECK(base.bytes() == 200 + 4 * 4);
}

TEST_CASE("Int8BlockBase has no block beyond a row, whatever the powers of two that a block may have", "[base]") {
  for (Index block : {32, 64, 128, 256, 512, 1024, 2048, 4096})
    for (Index columns : {block - 1, block, block + 1}) {
      const Int8BlockBase base(Matrix<float>(2, columns), {}, {.block = block});
      CAPTURE(block, columns);
      CHECK(base.code().scales().size() == (columns > block ? 4 : 2));
    }
  const Matrix<float> weight(2, 3);
  for (Index block : {-64, 1, 16, 33, 8192})
    CHECK_FALSE(error_text(ErrorCode::option, [&] { Int8BlockBase(weight, {}, {.block = block}); }).empty());
}

TEST_CASE("Int8BlockBase rounds ties to even", "[base]") {
  const std::vector<float> numbers{127, 62.5f, 63.5f, -62.5f, -63.5f, 62.4f, 62.6f, 0.5f};
  const Int8BlockBase base(View<const float>(numbers.data(), 1, 8));
  const auto codes = base.code().codes();
  CHECK(std::vector<int>(codes.begin(), codes.end()) == std::vector<int>{127, 62, 64, -62, -64, 62, 63, 0});
}

TEST_CASE("A weight of Int8BlockBase is off by half a scale at most, and coding it again changes no code", "[base]") {
  TestRng rng;
  const auto weight = random_input<float>(7, 200, rng, {.padding = 1});
  const Int8BlockBase base(weight.view());
  const auto w = decoded(base);
  for (Index o = 0; o < 7; ++o)
    for (Index i = 0; i < 200; ++i) {
      const double scale = double(base.code().scales()[std::size_t(o * 4 + i / 64)]);
      REQUIRE(std::abs(double(w(o, i)) - double(weight(o, i))) <= 0.5001 * scale);
    }
  const Int8BlockBase again(w);
  CHECK(std::equal(again.code().codes().begin(), again.code().codes().end(), base.code().codes().begin()));
}

TEST_CASE("Int8BlockBase codes the smallest and the largest numbers", "[base]") {
  const std::vector<float> numbers{1e-45f, -3e-45f, 3e38f, -1.4e38f};
  const Int8BlockBase small(View<const float>(numbers.data(), 1, 2)),
      large(View<const float>(numbers.data() + 2, 1, 2));
  CHECK(int(small.code().codes()[1]) == -127);
  CHECK(std::abs(decoded(large)(0, 1) + 1.4e38f) <= 3e38f / 254);
}

TEST_CASE("Int8BlockBase takes codes and scales as they are", "[base]") {
  const Int8BlockBase base(Int8BlockWeight(2, 1, {-128, 5}, {0.5f, 2.0f}));
  CHECK(decoded(base)(0, 0) == -64);
  CHECK(decoded(base)(1, 0) == 10);
}

TEST_CASE("Codes of 8 bits that are borrowed are read where they lie, and give the bits of owned ones", "[base]") {
  const Matrix<float> weight = support::random_matrix<float>(5, 100, 1), x = support::random_matrix<float>(3, 100, 2);
  const Int8BlockWeight owned(weight);
  const std::vector<std::int8_t> codes(owned.codes().begin(), owned.codes().end());
  const std::vector<float> scales(owned.scales().begin(), owned.scales().end());
  const View<const std::int8_t> file(codes.data(), 5, 100);
  const Int8BlockWeight borrowed(file, scales), copy = borrowed;
  CHECK(borrowed.codes().data() == codes.data());
  CHECK(copy.codes().data() == codes.data());
  CHECK(borrowed.bytes() == owned.bytes());
  Matrix<float> y(3, 5), expected(3, 5);
  forward(Int8BlockBase(borrowed), Simd<>{}, x, y);
  forward(Int8BlockBase(owned), Simd<>{}, x, expected);
  CHECK(support::same_bits(y, expected));
  CHECK(error_text(ErrorCode::shape, [&] {
          Int8BlockWeight(View<const std::int8_t>(codes.data(), 5, 90, 100), scales);
        }) == "Int8BlockBase: codes from one row to the next: expected 90, found 100");
  CHECK(error_text(ErrorCode::shape, [&] {
          Int8BlockWeight(file, {1, 2});
        }) == "Int8BlockBase: size of the scales: expected 10, found 2");
}

TEST_CASE("Int8BlockBase names what does not fit", "[base]") {
  CHECK(error_text(ErrorCode::shape, [] {
          Int8BlockWeight(2, 2, {1, 2, 3}, {1, 1});
        }) == "Int8BlockBase: size of the codes: expected 4, found 3");
  CHECK(error_text(ErrorCode::shape, [] {
          Int8BlockWeight(2, 2, {1, 2, 3, 4}, {1});
        }) == "Int8BlockBase: size of the scales: expected 2, found 1");
  CHECK(error_text(ErrorCode::option, [] { Int8BlockWeight(1, 1, {1}, {std::numeric_limits<float>::infinity()}); }) ==
        "Int8BlockBase: expected finite numbers, found inf at (0, 0)");
  Matrix<float> weight(2, 3);
  CHECK(error_text(ErrorCode::option, [&] { Int8BlockBase(weight, {}, {.block = 48}); }) ==
        "Int8BlockBase: expected a block of 32, 64, ... or 4096 elements, found 48");
  weight(1, 2) = std::numeric_limits<float>::quiet_NaN();
  CHECK(error_text(ErrorCode::option, [&] { Int8BlockBase{weight}; }) ==
        "Int8BlockBase: expected finite numbers, found nan at (1, 2)");
}
