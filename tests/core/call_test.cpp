// SPDX-License-Identifier: MIT
#include "mole/core/call.hpp"

#include "support/catch.hpp"

using namespace mole;

namespace {

struct WithScratch {
  struct Scratch {
    Index tokens, pairs;
  };
  Scratch scratch(const CallSize& capacity) const { return {capacity.tokens, capacity.pairs}; }
};
struct Without {};

}  // namespace

TEST_CASE("A policy that names a scratch gets one of the workspace's size", "[core]") {
  const auto scratch = scratch_for(WithScratch{}, {.tokens = 3, .pairs = 7});
  STATIC_REQUIRE(std::is_same_v<ScratchOf<WithScratch>, WithScratch::Scratch>);
  CHECK(scratch.tokens == 3);
  CHECK(scratch.pairs == 7);
}

TEST_CASE("A policy that names none gets the empty scratch", "[core]") {
  STATIC_REQUIRE(std::is_same_v<ScratchOf<Without>, NoScratch>);
  STATIC_REQUIRE(std::is_same_v<decltype(scratch_for(Without{}, {})), NoScratch>);
}

TEST_CASE("A workspace takes the default memory unless told otherwise", "[core]") {
  CHECK(CallSize{}.memory == std::pmr::get_default_resource());
  CHECK_FALSE(CallSize{}.latent);
}
