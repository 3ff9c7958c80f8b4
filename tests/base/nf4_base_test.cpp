// SPDX-License-Identifier: MIT
#include "mole/base/nf4_base.hpp"

#include "support/coded_base_checks.hpp"

using namespace mole;
using namespace mole::test;

namespace {

Nf4Base coded(std::vector<float> numbers, Index rows = 1) {
  return Nf4Base(View<const float>(numbers.data(), rows, Index(numbers.size()) / rows));
}

}  // namespace

TEST_CASE("Nf4Base does what every coded base does", "[base]") {
  check_coded_base<Nf4Base>();
}

TEST_CASE("Nf4Base does it with blocks of 32, doubly quantized, too", "[base]") {
  check_coded_base<Nf4Base>({.block = 32, .double_quantized = true});
}

TEST_CASE("NF4 puts the first element into the high nibble", "[base]") {
  const Nf4Base base = coded({1, -1});
  REQUIRE(base.code().parts().weight.size() == 1);
  CHECK(int(base.code().parts().weight[0]) == 0xf0);
  CHECK(base.code().parts().absmax == std::vector<float>{1});
}

TEST_CASE("An NF4 block of zeros is exactly zero", "[base]") {
  const Nf4Base base = coded(std::vector<float>(64, 0.0f));
  CHECK(base.code().parts().absmax == std::vector<float>{0});
  for (std::uint8_t byte : base.code().parts().weight) CHECK(int(byte) == 0x77);
  const Matrix<float> w = decoded(base);
  for (float element : w.elements()) CHECK(element == 0);
}

TEST_CASE("NF4 pads an odd count with the code of zero", "[base]") {
  const Nf4Base base = coded({1, 2, 3, 4, 5});
  REQUIRE(base.code().parts().weight.size() == 3);
  CHECK(int(base.code().parts().weight[2] & 15) == 7);
  CHECK(int(base.code().parts().weight[2] >> 4) == 15);
}

TEST_CASE("NF4 takes the nearest level; a midpoint goes to the lower", "[base]") {
  for (std::size_t code = 0; code + 1 < 16; ++code) {
    const float below = Nf4Levels::levels[code], above = Nf4Levels::levels[code + 1];
    const float middle = float((double(below) + double(above)) / 2);
    CAPTURE(code);
    CHECK(int(Nf4Levels::code(below)) == int(code));
    // bitsandbytes' midpoints are those of the unrounded levels: within a rounding of ours.
    CHECK(int(Nf4Levels::code(middle - 1e-6f)) == int(code));
    CHECK(int(Nf4Levels::code(middle + 1e-6f)) == int(code) + 1);
  }
  CHECK(int(Nf4Levels::code(0.8614784181118011f)) == 14);
  CHECK(int(Nf4Levels::code(std::nextafter(0.8614784181118011f, 1.0f))) == 15);
  CHECK(int(Nf4Levels::code(-0.8480964004993439f)) == 0);
}

TEST_CASE("An NF4 weight is off by 0.1519 absmax at most, and coding it again gives the same bytes", "[base]") {
  TestRng rng;
  for (Index cols : {64, 40, 65}) {
    const auto weight = random_input<float>(50, cols, rng);
    const Nf4Base base(weight.view());
    const auto w = decoded(base);
    for (Index o = 0; o < 50; ++o)
      for (Index i = 0; i < cols; ++i)
        REQUIRE(std::abs(double(w(o, i)) - double(weight(o, i))) <=
                0.1519 * double(base.code().absmax((o * cols + i) / 64)));
    const Nf4Base again(w);
    CHECK(again.code().parts().weight == base.code().parts().weight);
    CHECK(again.code().parts().absmax == base.code().parts().absmax);
  }
}

TEST_CASE("NF4 blocks cross rows", "[base]") {
  TestRng rng;
  const auto weight = random_input<float>(3, 40, rng);
  const Nf4Base base(weight.view());
  CHECK(base.code().parts().absmax.size() == 2);
  const std::vector<float> flat(weight.row(0), weight.row(0) + 120);
  const Nf4Base one_row = coded(flat);
  CHECK(base.code().parts().weight == one_row.code().parts().weight);
}

TEST_CASE("The dynamic map is that of bitsandbytes", "[base]") {
  const std::vector<float> map = detail::dynamic_map();
  REQUIRE(map.size() == 256);
  CHECK(map[0] == -0.99296875f);
  CHECK(map[126] == -5.5e-7f);
  CHECK(map[127] == 0);
  CHECK(map[128] == 5.5e-7f);
  CHECK(map[254] == 0.99296875f);
  CHECK(map[255] == 1);
  CHECK(int(detail::nearest_index(map, -1.0f)) == 0);
  CHECK(int(detail::nearest_index(map, 2.0f)) == 255);
  const std::vector<float> three{0, 1, 2};
  CHECK(int(detail::nearest_index(three, 0.5f)) == 0);  // a tie
  CHECK(int(detail::nearest_index(three, 0.51f)) == 1);
}

TEST_CASE("Doubly quantized, equal maxima are the offset exactly", "[base]") {
  Matrix<float> weight(10, 64);
  for (Index o = 0; o < 10; ++o) weight(o, o) = o % 2 == 0 ? 0.3f : -0.3f;
  const Nf4Base base(weight, {}, {.double_quantized = true});
  CHECK(base.code().nested());
  CHECK(base.code().parts().nested_offset == 0.3f);
  for (Index b = 0; b < 10; ++b) {
    CHECK(int(base.code().parts().nested_codes[std::size_t(b)]) == 127);
    CHECK(base.code().absmax(b) == 0.3f);
  }
}

TEST_CASE("Doubly quantized, a maximum is off by half a step of the map at most", "[base]") {
  TestRng rng;
  const auto weight = random_input<float>(300, 64, rng);
  const Nf4Base plain(weight.view()), nested(weight.view(), {}, {.double_quantized = true});
  CHECK(nested.code().parts().weight == plain.code().parts().weight);
  CHECK(nested.code().options().double_quantized);
  CHECK_FALSE(plain.code().options().double_quantized);
  CHECK(nested.code().parts().nested_absmax.size() == 2);
  for (Index b = 0; b < 300; ++b) {
    const double largest = double(nested.code().parts().nested_absmax[std::size_t(b / 256)]);
    REQUIRE(std::abs(double(nested.code().absmax(b)) - double(plain.code().absmax(b))) <= 0.0071 * largest);
  }
  CHECK(plain.bytes() == 300 * 64 / 2 + 4 * 300);
  CHECK(nested.bytes() == 300 * 64 / 2 + 300 + 4 * (2 + 256));
}

TEST_CASE("Nf4Base takes the parts of a file as they are", "[base]") {
  TestRng rng;
  const auto weight = random_input<float>(9, 100, rng);
  for (bool nested : {false, true}) {
    const Nf4Base base(weight.view(), {}, {.double_quantized = nested});
    const Nf4Base loaded{Nf4Weight(base.code().parts())};
    CHECK(support::same_bits(decoded(loaded), decoded(base)));
    CHECK(loaded.code().parts().weight == base.code().parts().weight);
    CHECK(loaded.code().nested() == nested);
  }
}

TEST_CASE("Nf4Base takes the parts of as many blocks as share one maximum, and of one less or more", "[base]") {
  for (Index blocks : {255, 256, 257, 512, 513}) {
    const Nf4Weight weight(Matrix<float>(blocks, 64), {.double_quantized = true});
    CAPTURE(blocks);
    CHECK(Index(weight.parts().nested_absmax.size()) == (blocks + 255) / 256);
    CHECK(error_text(ErrorCode::shape, [&] { Nf4Weight{weight.parts()}; }).empty());
  }
}

TEST_CASE("Nf4Base names what does not fit", "[base]") {
  const FourBitParts plain = Nf4Weight(Matrix<float>(9, 100)).parts();
  const FourBitParts nested = Nf4Weight(Matrix<float>(9, 100), {.double_quantized = true}).parts();
  const auto text = [](FourBitParts parts, auto change, ErrorCode code = ErrorCode::shape) {
    change(parts);
    return error_text(code, [&] { Nf4Weight{parts}; });
  };
  CHECK(text(plain, [](FourBitParts&) {}) == "");
  CHECK(text(plain, [](FourBitParts& p) { p.weight.pop_back(); }) ==
        "Nf4Base: size of weight, in bytes: expected 450, found 449");
  CHECK(text(plain, [](FourBitParts& p) { p.absmax.push_back(1); }) == "Nf4Base: size of absmax: expected 15, found 16");
  CHECK(text(nested, [](FourBitParts& p) { p.nested_codes.pop_back(); }) ==
        "Nf4Base: size of nested_codes: expected 15, found 14");
  CHECK(text(nested, [](FourBitParts& p) { p.nested_absmax.clear(); }) ==
        "Nf4Base: size of nested_absmax: expected 1, found 0");
  CHECK(text(nested, [](FourBitParts& p) { p.nested_quant_map.resize(16); }) ==
        "Nf4Base: size of nested_quant_map: expected 256, found 16");
  CHECK(text(nested, [](FourBitParts& p) { p.absmax.push_back(1); }) == "Nf4Base: size of absmax: expected 0, found 1");
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(text(
            plain, [&](FourBitParts& p) { p.absmax[3] = nan; }, ErrorCode::option) ==
        "Nf4Base: expected finite numbers, found nan at (0, 3)");
  CHECK(text(
            nested, [&](FourBitParts& p) { p.nested_offset = nan; }, ErrorCode::option) ==
        "Nf4Base: expected finite numbers, found nan at (0, 0)");
  CHECK(text(
            plain, [](FourBitParts& p) { p.block = 100; }, ErrorCode::option) ==
        "Nf4Base: expected a block of 32, 64, ... or 4096 elements, found 100");
  Matrix<float> weight(2, 3);
  weight(1, 2) = -std::numeric_limits<float>::infinity();
  CHECK(error_text(ErrorCode::option, [&] { Nf4Base{weight}; }) ==
        "Nf4Base: expected finite numbers, found -inf at (1, 2)");
}
