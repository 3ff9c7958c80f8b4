// SPDX-License-Identifier: MIT
#include "mole/io/encode_floats.hpp"

#include "mole/core/matrix.hpp"
#include "support/catch.hpp"

#include <array>

using namespace mole;

TEST_CASE("Numbers become the bytes of every dtype of floats, row by row, without what lies between the rows", "[io]") {
  const std::array<float, 6> numbers{1, -2, 99, 0.5f, 1.0f / 3, 99};
  const View<const float> view(numbers.data(), 2, 2, 3);
  const auto stored = [&]<class Stored>(Dtype dtype, std::array<Stored, 4> expected) {
    const std::vector<std::byte> bytes = encode_floats(view, dtype);
    REQUIRE(bytes.size() == sizeof expected);
    CHECK(std::memcmp(bytes.data(), expected.data(), sizeof expected) == 0);
  };
  stored(Dtype::f64, std::array<double, 4>{1, -2, 0.5, double(1.0f / 3)});
  stored(Dtype::f32, std::array<float, 4>{1, -2, 0.5f, 1.0f / 3});
  stored(Dtype::f16, std::array<std::uint16_t, 4>{0x3c00, 0xc000, 0x3800, 0x3555});
  stored(Dtype::bf16, std::array<std::uint16_t, 4>{0x3f80, 0xc000, 0x3f00, 0x3eab});
  CHECK(encode_floats(View<const double>(), Dtype::f32).empty());
  CHECK_THROWS_AS(encode_floats(view, Dtype::i8), Error);
}
