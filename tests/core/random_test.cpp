// SPDX-License-Identifier: MIT
#include "mole/core/random.hpp"

#include "support/catch.hpp"
#include "support/guarded_matrix.hpp"

#include <array>
#include <set>

using namespace mole;
using namespace mole::test;

namespace {

/// Draws one number for ever.
struct Constant {
  using result_type = std::uint64_t;
  static constexpr result_type min() { return 0; }
  static constexpr result_type max() { return ~result_type(0); }
  result_type operator()() { return number; }

  result_type number;
};

}  // namespace

// The numbers of this file come from a few lines of Python, not from the library.

TEST_CASE("mix_bits is SplitMix64", "[core]") {
  // The first two outputs of the published generator from state 0: its state grows by the constant inside.
  CHECK(mix_bits(0) == 0xe220a8397b1dcdafull);
  CHECK(mix_bits(0x9e3779b97f4a7c15ull) == 0x6e789e6aa1b965f4ull);
}

TEST_CASE("A generator's numbers never change", "[core]") {
  const std::array<std::array<std::uint64_t, 3>, 3> expected{{
      {0xa706dd2f4d197e6full, 0x2a98f501af37e97full, 0x82876e1c4f0b438cull},
      {0x5e41ab087439611eull, 0x86d6fd953217ae03ull, 0xbcd9dbb49673066bull},
      {0x64684c4f0fd784b4ull, 0xe06dd043328bd285ull, 0x9482d55a56af0c8cull},
  }};
  for (std::uint64_t seed = 0; seed < expected.size(); ++seed) {
    Rng rng(seed);
    CAPTURE(seed);
    for (std::uint64_t number : expected[seed]) CHECK(rng() == number);
  }
  CHECK(Rng{}() == expected[0][0]);
}

TEST_CASE("A generator resumes from its counter", "[core]") {
  Rng rng(7), resumed(8);
  for (int i = 0; i < 5; ++i) rng();
  resumed.set_counter(rng.counter());
  for (int i = 0; i < 5; ++i) CHECK(resumed() == rng());
}

TEST_CASE("unit_interval is below one and keeps 53 bits", "[core]") {
  CHECK(unit_interval(0) == 0);
  CHECK(unit_interval(~std::uint64_t(0)) == 1 - 0x1p-53);
  CHECK(unit_interval(std::uint64_t(1) << 63) == 0.5);
  CHECK(unit_interval(std::uint64_t(1) << 11) == 0x1p-53);
}

TEST_CASE("Uniform numbers never change, in float and double", "[core]") {
  const std::array<double, 4> wide{-0x1.0df2a7bc5e350p-3, 0x1.b5bf654c85ea0p-6, 0x1.e6cedda4b3980p-3,
                                   0x1.8a20e92a5ec34p-3};
  const std::array<float, 4> narrow{-0x1.0df2a8p-3f, 0x1.b5bf66p-6f, 0x1.e6cedep-3f, 0x1.8a20eap-3f};
  std::array<double, 4> found_wide{};
  std::array<float, 4> found_narrow{};
  Rng first(1), second(1);
  fill_uniform(View<double>(found_wide.data(), 2, 2), 0.5, first);
  fill_uniform(View<float>(found_narrow.data(), 2, 2), 0.5, second);
  CHECK(found_wide == wide);
  CHECK(found_narrow == narrow);
}

TEMPLATE_TEST_CASE("Uniform numbers fill a view to its bounds and leave the rest alone", "[core]", float, double) {
  for (double bound : {0.25, 3.0}) {
    Rng rng(5);
    GuardedMatrix<TestType> matrix(100, 37, TestType(-77.25), {.padding = 2, .before = 1, .after = 1});
    fill_uniform(matrix.view(), bound, rng);
    double least = bound, most = -bound, sum = 0;
    std::set<TestType> different;
    for (Index r = 0; r < 100; ++r)
      for (TestType element : matrix.view().row(r)) {
        least = std::min(least, double(element)), most = std::max(most, double(element)), sum += element;
        different.insert(element);
      }
    CHECK(matrix.intact());
    CHECK(least >= -bound);
    CHECK(most <= bound);
    CHECK(most - least > 1.99 * bound);
    CHECK(std::abs(sum / 3700) < 0.05 * bound);  // five standard deviations of the mean
    CHECK(different.size() > 3690);
  }
}

TEST_CASE("standard_normal has mean 0, deviation 1 and the tails of a normal", "[core]") {
  Rng rng(3);
  double sum = 0, square = 0, beyond = 0;
  for (int i = 0; i < 100'000; ++i) {
    const double draw = standard_normal(rng);
    sum += draw, square += draw * draw, beyond += std::abs(draw) > 2;
  }
  CHECK(std::abs(sum / 1e5) < 0.015);
  CHECK(std::abs(square / 1e5 - 1) < 0.02);
  CHECK(std::abs(beyond / 1e5 - 0.0455) < 0.003);
}

TEST_CASE("standard_normal is finite whatever the generator draws", "[core]") {
  for (std::uint64_t number : {std::uint64_t(0), std::uint64_t(1), std::uint64_t(1) << 11, ~std::uint64_t(0)}) {
    Constant generator{number};
    CHECK(std::isfinite(standard_normal(generator)));
  }
}
