// SPDX-License-Identifier: MIT
#include "mole/kernel/vector_conversions.hpp"

#include "grid.hpp"
#include "mole/core/reduced_floats.hpp"
#include "support/catch.hpp"

#include <array>
#include <numeric>

using namespace mole;
using namespace mole::test;

namespace {

constexpr Index float_step = kernel::step_of<Arch, float>;
using Pair = kernel::Pair<Arch>;

/// The bits of all 65536 patterns of a 16-bit format, decoded, are those of `scalar`; NaN may become another NaN.
template <class Load, class Scalar>
Index different_patterns(Load load, Scalar scalar) {
  Index different = 0;
  for (Index first = 0; first < 65536; first += float_step) {
    std::vector<std::uint16_t> codes(static_cast<std::size_t>(float_step));
    std::iota(codes.begin(), codes.end(), std::uint16_t(first));
    std::vector<float> found(codes.size());
    load(codes.data()).store_unaligned(found.data());
    for (std::size_t k = 0; k < codes.size(); ++k) {
      const float expected = scalar(codes[k]);
      const bool both_nan = std::isnan(expected) && std::isnan(found[k]);
      if (!both_nan && std::bit_cast<std::uint32_t>(found[k]) != std::bit_cast<std::uint32_t>(expected)) ++different;
    }
  }
  return different;
}

std::vector<float> elements_of(const Pair& pair) {
  std::vector<float> elements(static_cast<std::size_t>(Pair::size));
  pair.store(elements.data());
  return elements;
}

}  // namespace

TEST_CASE("All bfloat16 patterns are decoded exactly", "[kernel]") {
  CHECK(different_patterns([](const std::uint16_t* from) { return kernel::load_bfloat16<Arch>(from); },
                           from_bfloat16) == 0);
}

TEST_CASE("All binary16 patterns are decoded exactly, with and without an instruction for it", "[kernel]") {
  CHECK(different_patterns([](const std::uint16_t* from) { return kernel::load_float16<Arch>(from); }, from_float16) ==
        0);
  const auto generic = [](const std::uint16_t* from) {
    return kernel::detail::vector_of<Arch>([from](Index k) { return kernel::detail::float_of_half(from[k]); });
  };
  CHECK(different_patterns(generic, from_float16) == 0);
}

TEST_CASE("All 8-bit integers are decoded exactly", "[kernel]") {
  for (int first = -128; first < 128; first += int(float_step)) {
    std::vector<std::int8_t> codes(static_cast<std::size_t>(float_step));
    std::iota(codes.begin(), codes.end(), std::int8_t(first));
    std::vector<float> found(codes.size());
    kernel::load_int8<Arch>(codes.data()).store_unaligned(found.data());
    for (std::size_t k = 0; k < codes.size(); ++k) CHECK(found[k] == float(codes[k]));
  }
}

TEST_CASE("All bytes of two codes are decoded, the higher nibble into the first vector", "[kernel]") {
  std::array<float, 16> levels;
  for (std::size_t code = 0; code < 16; ++code) levels[code] = 1.3f - 0.17f * float(code);
  for (Index first = 0; first < 256; first += float_step) {
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(float_step));
    std::iota(codes.begin(), codes.end(), std::uint8_t(first));
    const auto found = elements_of(kernel::load_four_bits<Arch>(codes.data(), levels.data(), 0.7f));
    for (std::size_t k = 0; k < codes.size(); ++k) {
      CHECK(found[k] == levels[codes[k] >> 4] * 0.7f);
      CHECK(found[k + codes.size()] == levels[codes[k] & 15] * 0.7f);
    }
  }
}

TEST_CASE("Interleaving undoes deinterleaving", "[kernel]") {
  std::vector<float> numbers(static_cast<std::size_t>(Pair::size));
  std::iota(numbers.begin(), numbers.end(), 0.0f);
  const Pair apart = kernel::deinterleave(Pair::load(numbers.data()));
  const auto order = elements_of(apart);
  for (std::size_t k = 0; k < numbers.size() / 2; ++k) {
    CHECK(order[k] == float(2 * k));
    CHECK(order[k + numbers.size() / 2] == float(2 * k + 1));
  }
  CHECK(elements_of(kernel::interleave(apart)) == numbers);
}
