// SPDX-License-Identifier: MIT
#include "mole/core/pass.hpp"

#include "support/catch.hpp"

#include <vector>

using namespace mole;

TEST_CASE("Without a mask every token counts, with one those that it names", "[core]") {
  CHECK(Pass{}.counts(1000));
  const std::vector<std::uint8_t> mask{1, 0, 255};
  const Pass pass{.token_mask = mask};
  CHECK(pass.counts(0));
  CHECK_FALSE(pass.counts(1));
  CHECK(pass.counts(2));
}

TEST_CASE("Flags of allowed experts must be one per token and expert", "[core]") {
  const std::vector<std::uint8_t> six(6, 1);
  CHECK_NOTHROW(Pass{.allowed = six}.check(2, 3));
  CHECK_THROWS_AS(Pass{.allowed = six}.check(3, 3), Error);
  CHECK_THROWS_AS(Pass{.allowed = six}.check(0, 3), Error);
}

TEST_CASE("Without sequence starts the batch is one sequence", "[core]") {
  const Pass pass;
  CHECK(pass.sequences() == 1);
  CHECK(pass.first_of(0) == 0);
  CHECK(pass.end_of(0, 17) == 17);
  CHECK_FALSE(pass.training);
}

TEST_CASE("A sequence ends where the next begins, the last one with the batch", "[core]") {
  const std::vector<Index> begin{0, 4, 4, 9};
  const Pass pass{.sequence_begin = begin};
  REQUIRE(pass.sequences() == 4);
  const std::vector<Index> end{4, 4, 9, 12};
  for (Index s = 0; s < 4; ++s) {
    CHECK(pass.first_of(s) == begin[std::size_t(s)]);
    CHECK(pass.end_of(s, 12) == end[std::size_t(s)]);
  }
}

TEST_CASE("Labels are checked for the tokens that are routed, and missing where there is one kind", "[core]") {
  const std::vector<int> labels{0, 5, 2};
  const std::vector<std::uint8_t> routed{1, 0, 1};
  CHECK(Pass{}.label(7) == 0);
  CHECK(Pass{.labels = labels}.label(1) == 5);
  CHECK_NOTHROW(Pass{}.check_labels("test", 1, 3));
  CHECK_THROWS_AS(Pass{}.check_labels("test", 2, 3), Error);
  CHECK_NOTHROW(Pass{}.check_labels("test", 2, 0));  // an empty batch has empty labels
  CHECK_THROWS_AS(Pass{.labels = labels}.check_labels("test", 5, 3), Error);
  CHECK_NOTHROW(Pass{.labels = labels}.check_labels("test", 6, 3));
  CHECK_NOTHROW((Pass{.routed = routed, .labels = labels}.check_labels("test", 3, 3)));
  CHECK_THROWS_AS(Pass{.labels = labels}.check(4, 1), Error);
}
