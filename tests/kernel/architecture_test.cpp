// SPDX-License-Identifier: MIT
#include "mole/kernel/architecture.hpp"

#include "support/catch.hpp"

#include <string>

using namespace mole;

namespace {

// A family of instruction sets, as xsimd's avx512f, avx512cd, ... are one.
struct First {};
struct Second : First {};
struct Third : Second {};
struct Fourth : Third {};

std::string overload(kernel::AnyArchitecture) {
  return "any";
}
std::string overload(First) {
  return "first";
}
std::string overload(Third) {
  return "third";
}

}  // namespace

TEST_CASE("A tag calls the overload of the nearest instruction set that it extends, else that of any", "[kernel]") {
  CHECK(overload(kernel::Tag<First>()) == "first");
  CHECK(overload(kernel::Tag<Second>()) == "first");
  CHECK(overload(kernel::Tag<Third>()) == "third");
  CHECK(overload(kernel::Tag<Fourth>()) == "third");
  CHECK(overload(kernel::Tag<kernel::DefaultArchitecture>()) == "any");
  CHECK(overload(kernel::Tag<kernel::Scalar>()) == "any");
}

TEST_CASE("A tile of accumulators fits the registers of the instruction set", "[kernel]") {
  CHECK(kernel::registers_of<xsimd::sse2> == 16);
  CHECK(kernel::registers_of<xsimd::avx2> == 16);
  CHECK(kernel::registers_of<xsimd::avx512f> == 32);
  CHECK(kernel::registers_of<xsimd::avx512bw> == 32);
}
