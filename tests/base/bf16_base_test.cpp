// SPDX-License-Identifier: MIT
#include "mole/base/bf16_base.hpp"

#include "support/coded_base_checks.hpp"

using namespace mole;
using namespace mole::test;

TEST_CASE("Bf16Base does what every coded base does", "[base]") {
  check_coded_base<Bf16Base>();
}

TEST_CASE("Bf16Base rounds to the nearest bfloat16, and keeps infinities", "[base]") {
  const float infinite = std::numeric_limits<float>::infinity();
  const std::vector<float> numbers{1.0f, 1.00390625f, 1.01171875f, -infinite, 1e-40f};  // the middle two are ties
  const Bf16Base base(View<const float>(numbers.data(), 1, 5));
  const auto w = decoded(base);
  CHECK(w(0, 0) == 1.0f);
  CHECK(w(0, 1) == 1.0f);
  CHECK(w(0, 2) == 1.015625f);
  CHECK(w(0, 3) == -infinite);
  CHECK(std::abs(w(0, 4) - 1e-40f) <= 0x1p-134f);
  CHECK(base.bytes() == 10);
}

TEST_CASE("Bf16Base takes codes as they are", "[base]") {
  const Bf16Base base(ReducedFloatWeight<Bfloat16>(1, 2, {0x3f80, 0xc000}));
  CHECK(decoded(base)(0, 0) == 1);
  CHECK(decoded(base)(0, 1) == -2);
  CHECK(base.code().codes()[1] == 0xc000);
}

TEST_CASE("Bf16Base takes codes of [I x O], the usual way round", "[base]") {
  Matrix<float> weight = support::random_matrix<float>(70, 40, 1);
  const Bf16Base usual(weight.view());
  const std::vector<float> bias(70, 0.5f);
  std::vector<std::uint16_t> codes(40 * 73);
  for (Index o = 0; o < 70; ++o)
    for (Index i = 0; i < 40; ++i) codes[std::size_t(i * 73 + o)] = usual.code().codes()[std::size_t(o * 40 + i)];
  const View<const std::uint16_t> memory(codes.data(), 40, 70, 73);
  const Bf16Base base(Transposed{memory}, bias);
  CHECK(std::ranges::equal(base.code().codes(), usual.code().codes()));
  CHECK(std::ranges::equal(base.bias(), bias));
}

TEST_CASE("Bf16Base names what does not fit", "[base]") {
  CHECK(error_text(ErrorCode::shape, [] {
          ReducedFloatWeight<Bfloat16>(2, 2, {1, 2, 3});
        }) == "Bf16Base: size of the codes: expected 4, found 3");
  const float largest = std::numeric_limits<float>::max();
  CHECK(error_text(ErrorCode::option, [&] { Bf16Base(View<const float>(&largest, 1, 1)); }) !=
        "");  // would round to infinity
}
