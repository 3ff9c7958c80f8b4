// SPDX-License-Identifier: MIT
#include "mole/method/mos.hpp"

#include "core/error_code.hpp"
#include "method/method_checks.hpp"
#include "mole/surgery/merge.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("mos is the LoRA of the pool's shards, over the ranks of a layer", "[method]") {
  Rng rng(1);
  const auto square = support::random_matrix<double>(12, 8, 1), x = support::random_matrix<double>(5, 8, 2);
  const auto pool = std::make_shared<ShardPool<double>>(
      ShardPool<double>::Options{.in = 8, .out = 12, .layers = 2, .pool_rank = 2, .rank = 3}, rng);
  fill_uniform(pool->parameters().pool_B.view(), 1, rng);
  auto layer = mos({.layer = 1, .alpha = 6, .dropout = 0}, pool, DenseBase{square}, rng);
  CHECK(difference_from_lora(layer, x, 2) < 1e-12);
  CHECK(can_merge(layer));
  CHECK(test::code_of([&] { mos({}, pool, DenseBase{weight}, rng); }) == ErrorCode::shape);
}
