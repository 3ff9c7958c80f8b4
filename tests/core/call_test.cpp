// SPDX-License-Identifier: MIT
#include "mole/core/call.hpp"

#include "core/error_code.hpp"
#include "mole/execution/reference.hpp"
#include "support/catch.hpp"

using namespace mole;

namespace {

struct WithScratch {
  struct Scratch {
    View<float> rows;
    std::span<int> pairs;
  };
  Scratch scratch(const CallSize& size, Arena& arena) const {
    return {arena.matrix<float>(size.tokens, 5), arena.array<int>(size.pairs)};
  }
};
struct Without {};
struct Both {
  struct Scratch {
    WithScratch::Scratch part;
    int own = 7;
  };
};

}  // namespace

TEST_CASE("A policy that names a scratch gets one of the workspace's size", "[core]") {
  OwnedScratch<WithScratch> scratch(WithScratch{}, {.tokens = 3, .pairs = 7});
  STATIC_REQUIRE(std::is_same_v<ScratchOf<WithScratch>, WithScratch::Scratch>);
  CHECK((*scratch).rows.rows() == 3);
  CHECK((*scratch).rows.cols() == 5);
  CHECK((*scratch).pairs.size() == 7);
}

TEST_CASE("A policy that names none gets the empty scratch", "[core]") {
  STATIC_REQUIRE(std::is_same_v<ScratchOf<Without>, NoScratch>);
  Arena arena;
  STATIC_REQUIRE(std::is_same_v<decltype(scratch_for(Without{}, {}, arena)), NoScratch>);
  static_cast<void>(scratch_for(Without{}, {.tokens = 9}, arena));
  CHECK(arena.used() == 0);
}

TEST_CASE("A call is handed on with the scratch of a part", "[core]") {
  const Pass pass{.step = 3};
  const Reference execution;
  Both::Scratch scratch;
  const Call call{execution, pass, scratch};
  const auto inner = call.with(call.scratch.part);
  CHECK(&inner.scratch == &scratch.part);
  CHECK(&inner.pass == &pass);
  CHECK(&inner.execution == &execution);
}

TEST_CASE("A size of less than nothing is refused", "[core]") {
  CHECK(test::code_of([] { CallSize{.tokens = -1}.check(); }) == ErrorCode::option);
  CHECK(test::code_of([] { CallSize{.pairs = -1}.check(); }) == ErrorCode::option);
  CHECK(test::code_of([] { CallSize{.pairs = Index(1) << 31}.check(); }) == ErrorCode::option);
  CHECK_NOTHROW(CallSize{}.check());
}
