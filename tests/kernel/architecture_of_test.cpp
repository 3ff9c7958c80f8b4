// SPDX-License-Identifier: MIT
#include "mole/kernel/architecture_of.hpp"

#include "support/catch.hpp"

#include <type_traits>

using namespace mole;

namespace {
struct Vectors {
  using Architecture = xsimd::default_arch;
};
struct SingleElements {
  using Architecture = kernel::Scalar;
};
struct SaysNothing {};
}  // namespace

TEST_CASE("An execution computes with the vectors that it names, or with none", "[kernel]") {
  STATIC_REQUIRE(std::is_same_v<kernel::ArchitectureOf<Vectors>, xsimd::default_arch>);
  STATIC_REQUIRE(std::is_same_v<kernel::ArchitectureOf<const Vectors&>, xsimd::default_arch>);
  STATIC_REQUIRE(std::is_void_v<kernel::ArchitectureOf<SingleElements>>);
  STATIC_REQUIRE(std::is_void_v<kernel::ArchitectureOf<SaysNothing>>);
}
