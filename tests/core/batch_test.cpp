// SPDX-License-Identifier: MIT
#include "mole/core/batch.hpp"

#include "support/catch.hpp"

#include <vector>

using namespace mole;

TEST_CASE("Without a mask every token counts, with one those that it names", "[core]") {
  CHECK(Batch{}.counts(1000));
  const std::vector<std::uint8_t> mask{1, 0, 255};
  const Batch batch{.token_mask = mask};
  CHECK(batch.counts(0));
  CHECK_FALSE(batch.counts(1));
  CHECK(batch.counts(2));
}

TEST_CASE("Without sequence starts the batch is one sequence", "[core]") {
  const Batch batch;
  CHECK(batch.sequences() == 1);
  CHECK(batch.first_of(0) == 0);
  CHECK(batch.end_of(0, 17) == 17);
  CHECK_FALSE(batch.training);
}

TEST_CASE("A sequence ends where the next begins, the last one with the batch", "[core]") {
  const std::vector<Index> begin{0, 4, 4, 9};
  const Batch batch{.sequence_begin = begin};
  REQUIRE(batch.sequences() == 4);
  const std::vector<Index> end{4, 4, 9, 12};
  for (Index s = 0; s < 4; ++s) {
    CHECK(batch.first_of(s) == begin[std::size_t(s)]);
    CHECK(batch.end_of(s, 12) == end[std::size_t(s)]);
  }
}
