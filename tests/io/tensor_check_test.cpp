// SPDX-License-Identifier: MIT
#include "mole/io/tensor_check.hpp"

#include "mole/core/matrix.hpp"
#include "mole/io/encode_floats.hpp"
#include "support/catch.hpp"

#include <array>
#include <limits>

using namespace mole;

TEST_CASE("Norm and largest number are those of the finite numbers, of every dtype of floats", "[io]") {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const std::array<float, 6> numbers{3, -4, std::numeric_limits<float>::quiet_NaN(), infinity, -infinity, 0};
  for (const Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::f16, Dtype::bf16}) {
    const auto bytes = encode_floats(View<const float>(numbers.data(), 2, 3), dtype);
    const TensorCheck check = check_tensor(SafetensorsEntry{"x", dtype, {2, 3}, bytes});
    CHECK(check.numbers);
    CHECK(check.not_finite == 3);
    CHECK(check.norm == 5);
    CHECK(check.largest == 4);
  }
}

TEST_CASE("A tensor of codes, and one without numbers, are nothing out of the ordinary", "[io]") {
  const std::array<std::byte, 2> codes{std::byte(0x7f), std::byte(0x80)};
  CHECK_FALSE(check_tensor(SafetensorsEntry{"x", Dtype::i8, {2}, codes}).numbers);
  CHECK(check_tensor(SafetensorsEntry{"x", Dtype::f32, {0}, {}}).norm == 0);
  CHECK_FALSE(check_tensor(GgufEntry{"x", GgufType(12), {2}, codes}).numbers);
}

TEST_CASE("Blocks of codes with a scale are decoded, whose NaN is that of all their numbers", "[io]") {
  std::array<std::byte, 34> block{};
  block[1] = std::byte(0x40);  // a scale of 2
  block[2] = std::byte(3), block[33] = std::byte(0xfc);
  TensorCheck check = check_tensor(GgufEntry{"x", GgufType::q8_0, {1, 32}, block});
  CHECK(check.norm == 10);
  CHECK(check.largest == 8);
  block[1] = std::byte(0x7e);
  check = check_tensor(GgufEntry{"x", GgufType::q8_0, {1, 32}, block});
  CHECK(check.not_finite == 32);
}
