// SPDX-License-Identifier: MIT
#include "mole/core/reduced_floats.hpp"

#include "support/catch.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace {

using namespace mole;

constexpr float infinity = std::numeric_limits<float>::infinity();

/// The nearest of all finite 16-bit values to `value` by search, ties to the even pattern: slow and obvious.
template <class From>
std::uint16_t nearest(float value, From from, std::uint16_t patterns) {
  std::uint16_t best = 0;
  double best_distance = infinity;
  for (std::uint16_t bits = 0; bits < patterns; ++bits) {
    const double distance = std::abs(double(from(bits)) - double(std::abs(value)));
    if (distance < best_distance || (distance == best_distance && bits % 2 == 0)) {
      best = bits;
      best_distance = distance;
    }
  }
  return std::uint16_t(best | (std::signbit(value) ? 0x8000 : 0));
}

}  // namespace

TEST_CASE("All 65536 patterns of both formats survive the way to float and back", "[io]") {
  bool half = true, brain = true, nan_kept = true;
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const std::uint16_t bits = std::uint16_t(i);
    half = half && to_float16(from_float16(bits)) == bits;
    brain = brain && to_bfloat16(from_bfloat16(bits)) == bits;
    nan_kept = nan_kept && std::isnan(from_float16(bits)) == ((bits & 0x7fff) > 0x7c00) &&
               std::isnan(from_bfloat16(bits)) == ((bits & 0x7fff) > 0x7f80);
  }
  CHECK(half);
  CHECK(brain);
  CHECK(nan_kept);
}

TEST_CASE("Known values have their published patterns", "[io]") {
  CHECK(from_float16(0x3c00) == 1.0f);
  CHECK(from_float16(0x7bff) == 65504.0f);
  CHECK(from_float16(0x0001) == 0x1p-24f);
  CHECK(from_float16(0x0400) == 0x1p-14f);
  CHECK(from_float16(0xfc00) == -infinity);
  CHECK(std::signbit(from_float16(0x8000)));
  CHECK(from_bfloat16(0x3f80) == 1.0f);
  CHECK(from_bfloat16(0xff80) == -infinity);
}

TEST_CASE("Halfway values go to the even neighbor", "[io]") {
  CHECK(to_float16(1.0f + 0x1p-11f) == 0x3c00);
  CHECK(to_float16(1.0f + 0x3p-11f) == 0x3c02);
  CHECK(to_float16(std::nextafter(1.0f + 0x1p-11f, 2.0f)) == 0x3c01);
  CHECK(to_float16(0x1p-25f) == 0x0000);
  CHECK(to_float16(std::nextafter(0x1p-25f, 1.0f)) == 0x0001);
  CHECK(to_float16(0x3p-25f) == 0x0002);
  CHECK(to_float16(65519.99f) == 0x7bff);
  CHECK(to_float16(65520.0f) == 0x7c00);
  CHECK(to_bfloat16(1.0f + 0x1p-8f) == 0x3f80);
  CHECK(to_bfloat16(1.0f + 0x3p-8f) == 0x3f82);
  CHECK(to_bfloat16(std::numeric_limits<float>::max()) == 0x7f80);
}

TEST_CASE("Rounding agrees with a search over all patterns", "[io]") {
  std::uint32_t state = 1;
  for (int i = 0; i < 300; ++i) {
    state = state * 1664525u + 1013904223u;
    const int exponent = int(state >> 27) - 26;  // 2^-26 ... 2^5: subnormals of F16 and both neighbors
    const float value = std::ldexp(1.0f + float(state & 0x7fffff) * 0x1p-23f, exponent) * (i % 2 ? -1.0f : 1.0f);
    INFO(value);
    CHECK(to_float16(value) == nearest(value, from_float16, 0x7c00));
    CHECK(to_bfloat16(value) == nearest(value, from_bfloat16, 0x7f80));
  }
}

TEST_CASE("A NaN whose payload lies below the cut stays a NaN", "[io]") {
  const float nan = std::bit_cast<float>(0xff800001u);
  CHECK(std::isnan(from_float16(to_float16(nan))));
  CHECK(std::isnan(from_bfloat16(to_bfloat16(nan))));
  CHECK((to_float16(nan) & 0x8000) != 0);
}
