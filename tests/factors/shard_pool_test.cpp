// SPDX-License-Identifier: MIT
#include "mole/factors/shard_pool.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <set>

using namespace mole;

namespace {

ShardPool<double> made(ShardPool<double>::Options options) {
  Rng rng(3);
  options.in = 12, options.out = 8;
  return {options, rng};
}

}  // namespace

TEST_CASE("Shards of a layer are distinct, private ones its own, and those of A and B drawn apart", "[factors]") {
  const auto pool = made({.layers = 5, .pool_rank = 3, .rank = 7, .private_rank = 1, .shards = 4});
  const Index shared = 2 * 5 * 4, all = 3 * 5 * 4;
  std::set<std::int32_t> private_ones;
  Rng rng(1);
  for (Index layer = 0; layer < 5; ++layer) {
    const auto table = pool.draw(layer, rng);
    for (const auto* rows : {&table.a, &table.b}) {
      REQUIRE(rows->size() == 28);
      CHECK(std::set(rows->begin(), rows->end()).size() == 28);
      for (std::size_t i = 0; i < 28; ++i) CHECK(((*rows)[i] < shared) == (i < 24));
      CHECK(*std::ranges::max_element(*rows) < all);
    }
    CHECK(table.a != table.b);
    CHECK(std::equal(table.a.begin() + 24, table.a.end(), table.b.begin() + 24));
    for (std::size_t i = 24; i < 28; ++i) CHECK(private_ones.insert(table.a[i]).second);
  }
  CHECK(private_ones.size() == 20);
}

TEST_CASE("Every shared shard is drawn as often as another", "[factors]") {
  const auto pool = made({.layers = 5, .pool_rank = 1, .rank = 2, .private_rank = 0, .shards = 2});
  std::vector<int> count(10), first(10);
  Rng rng(1);
  for (int draw = 0; draw < 5000; ++draw) {
    const auto table = pool.draw(0, rng);
    for (std::int32_t row : table.a) ++count[std::size_t(row)];
    ++first[std::size_t(table.a[0])];
  }
  for (std::size_t row = 0; row < 10; ++row) {
    CHECK(std::abs(count[row] - 2000) < 170);
    CHECK(std::abs(first[row] - 500) < 100);
  }
}

TEST_CASE("A pool is walked as a layer is, with its gradients", "[factors]") {
  ShardPool<double> pool = made({.layers = 2, .pool_rank = 2, .rank = 3});
  auto gradients = pool.gradients();
  std::vector<std::string> names;
  pool.for_each_tensor(
      [&](std::string_view name, View<double> parameter, View<double> gradient) {
        names.emplace_back(name);
        CHECK(parameter.rows() == 16);
        CHECK(gradient.rows() == 16);
        CHECK(gradient.data() != parameter.data());
      },
      gradients);
  CHECK(names == std::vector<std::string>{"pool_A", "pool_B"});
  for (double d : gradients.pool_A.elements()) CHECK(d == 0);
}

TEST_CASE("A pool refuses sizes that cannot be", "[factors]") {
  using Pool = ShardPool<double>;
  const auto code = [](Pool::Options options) {
    Rng rng;
    return test::code_of([&] { Pool(options, rng); });
  };
  CHECK_FALSE(code({.in = 12, .out = 8, .layers = 2, .pool_rank = 2, .rank = 3}));
  CHECK(code({.in = 0, .out = 8}) == ErrorCode::option);
  CHECK(code({.in = 12, .out = 9}) == ErrorCode::option);
  CHECK(code({.in = 12, .out = 8, .layers = 0}) == ErrorCode::option);
  CHECK(code({.in = 12, .out = 8, .layers = 2, .pool_rank = 2, .rank = 4}) == ErrorCode::option);  // 3 of 2 shared
  CHECK(code({.in = 12, .out = 8, .layers = 9, .pool_rank = 2, .rank = 4, .private_rank = 3}) == ErrorCode::option);
  CHECK(code({.in = 12, .out = 8, .layers = Index(1) << 40, .pool_rank = Index(1) << 40}) == ErrorCode::option);

  Pool pool = made({.layers = 2, .pool_rank = 2, .rank = 3});
  CHECK_NOTHROW(pool.check_sizes());
  pool.parameters().pool_B = Matrix<double>(16, 3);
  CHECK(test::code_of([&] { pool.check_sizes(); }) == ErrorCode::shape);
  Rng rng;
  CHECK(test::code_of([&] { pool.draw(2, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { pool.draw(-1, rng); }) == ErrorCode::option);
}
