// SPDX-License-Identifier: MIT
#include "mole/base/four_bit_weight.hpp"

#include "support/coded_base_checks.hpp"

#include <algorithm>
#include <cmath>

using namespace mole;
using namespace mole::test;

namespace {

/// Levels of a user, in no order: code c is (5 c mod 16 - 8) / 8.
struct OwnLevels {
  static constexpr const char* name = "OwnBase";
  static constexpr bool signed_scale = true;
  static constexpr std::array<float, 16> levels = [] {
    std::array<float, 16> own{};
    for (int code = 0; code < 16; ++code) own[std::size_t(code)] = float(code * 5 % 16 - 8) / 8;
    return own;
  }();

  static std::uint8_t code(float x) {
    const auto nearer = [x](float a, float b) { return std::abs(a - x) < std::abs(b - x); };
    return std::uint8_t(std::min_element(levels.begin(), levels.end(), nearer) - levels.begin());
  }
};

using OwnBase = CodedBase<FourBitWeight<OwnLevels>>;

}  // namespace

TEST_CASE("A base of a user's own levels does what every coded base does", "[base]") {
  check_coded_base<OwnBase>();
  check_coded_base<OwnBase>({.block = 32});
}

TEST_CASE("A FourBitWeight has a level times its block's scale, also where blocks cross rows", "[base]") {
  const Matrix<float> weight = support::random_matrix<float>(7, 48, 3);
  const FourBitWeight<OwnLevels> coded(weight, {.block = 32});
  for (Index o = 0; o < 7; ++o)
    for (Index i = 0; i < 48; ++i) {
      const Index at = o * 48 + i;
      const unsigned byte = coded.parts().weight[std::size_t(at / 2)];
      const float level = OwnLevels::levels[at % 2 == 0 ? byte >> 4 : byte & 15u];
      CHECK(coded(o, i) == level * coded.absmax(at / 32));
    }
}

TEST_CASE("Messages of a FourBitWeight have the name of its levels", "[base]") {
  CHECK(error_text(ErrorCode::option, [] {
          FourBitWeight<OwnLevels>(Matrix<float>(2, 32), {.block = 33});
        }).starts_with("OwnBase: "));
}
