// SPDX-License-Identifier: MIT
#include "mole/base/q8_base.hpp"

#include "support/coded_base_checks.hpp"

#include <bit>

using namespace mole;
using namespace mole::test;

TEST_CASE("Q8Base does what every coded base does", "[base]") {
  check_coded_base<Q8Base>({}, Q8Weight::block);
}

TEST_CASE("A block of Q8Base is its scale in binary16, then its codes", "[base]") {
  Matrix<float> weight(1, 64);
  weight(0, 3) = -2, weight(0, 4) = 1, weight(0, 32) = 254;
  const Q8Weight coded(weight);
  const std::span<const std::byte> blocks = coded.blocks();
  REQUIRE(blocks.size() == 68);
  CHECK(coded.bytes() == 68);
  CHECK(std::to_integer<int>(blocks[0]) + 256 * std::to_integer<int>(blocks[1]) == to_float16(2.0f / 127));
  CHECK(std::to_integer<std::int8_t>(blocks[2 + 3]) == -127);
  CHECK(std::to_integer<std::int8_t>(blocks[2 + 4]) == 64);  // 63.5, ties away from 0
  CHECK(std::to_integer<std::int8_t>(blocks[34 + 2]) == 127);
  CHECK(coded.scale(0, 63) == 2);
  CHECK(coded(0, 32) == 254);
  CHECK(coded(0, 3) == -127 * from_float16(to_float16(2.0f / 127)));
  CHECK(coded(0, 5) == 0);
}

TEST_CASE("A weight of Q8Base is off by half a scale and the rounding of the scale at most", "[base]") {
  TestRng rng;
  const auto weight = random_input<float>(7, 192, rng, {.padding = 1});
  const Q8Weight coded(weight.view());
  for (Index o = 0; o < 7; ++o)
    for (Index i = 0; i < 192; ++i)
      REQUIRE(std::abs(coded(o, i) - weight(o, i)) <= coded.scale(o, i) * (0.501f + 127.0f / 2048));
}

TEST_CASE("Blocks of Q8Base are borrowed at any address, bit for bit", "[base]") {
  const Matrix<float> weight = support::random_matrix<float>(5, 96, 1), x = support::random_matrix<float>(3, 96, 2);
  const Q8Weight owned(weight);
  std::vector<std::byte> file(owned.bytes() + 1);
  std::ranges::copy(owned.blocks(), file.begin() + 1);  // an odd address
  const Q8Weight borrowed(5, 96, std::span(file).subspan(1)), copy = borrowed;
  CHECK(copy.blocks().data() == file.data() + 1);
  Matrix<float> y(3, 5), expected(3, 5);
  forward(Q8Base(copy), Simd<>{}, x, y);
  forward(Q8Base(owned), Simd<>{}, x, expected);
  CHECK(support::same_bits(y, expected));
  Q8Weight moved_to = owned, second = moved_to;  // an owned one does not point to another
  moved_to = Q8Weight(Matrix<float>(5, 96));
  CHECK(second(0, 0) == owned(0, 0));
}

TEST_CASE("Any number of rows without elements costs nothing", "[base]") {
  const Q8Weight empty(Index(1) << 60, 0, std::span<const std::byte>());
  CHECK(empty.bytes() == 0);
}

TEST_CASE("Q8Base names what does not fit", "[base]") {
  CHECK(error_text(ErrorCode::shape, [] { Q8Weight(Matrix<float>(2, 33)); }) ==
        "Q8Base: expected rows of whole blocks of 32, found 33 elements");
  const std::vector<std::byte> blocks(68);
  CHECK(error_text(ErrorCode::shape, [&] { Q8Weight(1, 32, blocks); }) ==
        "Q8Base: bytes of the blocks: expected 34, found 68");
  CHECK(error_text(ErrorCode::option, [&] { Q8Weight(-1, -64, blocks); }) != "");
  CHECK(error_text(ErrorCode::option, [&] { Q8Weight(Index(1) << 60, 64, blocks); }) != "");
  std::vector<std::byte> infinite = blocks;
  infinite[34 + 1] = std::byte(0x7c);
  CHECK(error_text(ErrorCode::option, [&] { Q8Weight(2, 32, infinite); }) ==
        "Q8Base: expected finite scales, found inf at (1, 0)");
  Matrix<float> weight(1, 32);
  weight(0, 7) = std::numeric_limits<float>::quiet_NaN();
  CHECK(error_text(ErrorCode::option, [&] { Q8Weight{weight}; }) ==
        "Q8Base: expected numbers of magnitude up to 8.3e6, found inf");
  weight(0, 7) = 8.33e6f;
  CHECK(error_text(ErrorCode::option, [&] { Q8Weight{weight}; }) ==
        "Q8Base: expected numbers of magnitude up to 8.3e6, found 8.33e+06");
}
