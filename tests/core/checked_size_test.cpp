// SPDX-License-Identifier: MIT
#include "mole/core/checked_size.hpp"

#include "core/error_code.hpp"
#include "mole/mole.hpp"
#include "support/catch.hpp"

using namespace mole;
using test::code_of;

namespace {
constexpr Index most = std::numeric_limits<Index>::max();
}

TEST_CASE("A product of sizes is exact, or an error", "[core]") {
  CHECK(checked_product("size", 3, 4) == 12);
  CHECK(checked_product("size", 3, 4, 5, 6) == 360);
  CHECK(checked_product("size", most, 1) == most);
  CHECK(checked_product("size", 0, most, most) == 0);
  CHECK(checked_product("size", most, 0) == 0);
  CHECK(code_of([] { checked_product("size", -2, -3); }) == ErrorCode::option);
  CHECK(code_of([] { checked_product("size", 3, -1); }) == ErrorCode::option);
  CHECK(code_of([] { checked_product("size", most, 2); }) == ErrorCode::option);
  CHECK(code_of([] { checked_product("size", Index(1) << 33, Index(1) << 31); }) == ErrorCode::option);
  CHECK(code_of([] { checked_product("size", Index(1) << 21, Index(1) << 21, Index(1) << 21); }) == ErrorCode::option);
  CHECK(test::text_of([] { checked_product("my size", -2, 3); }) ==
        "my size: expected sizes of at least 0 whose product fits 63 bits, found -2 and 3");
}

TEST_CASE("An int holds a size, or it is an error", "[core]") {
  CHECK(checked_int("size", 2147483647) == 2147483647);
  CHECK(code_of([] { checked_int("size", Index(1) << 31); }) == ErrorCode::option);
  CHECK(code_of([] { checked_int("size", (Index(1) << 32) + 3); }) == ErrorCode::option);
  CHECK(code_of([] { checked_int("size", -1); }) == ErrorCode::option);
}

TEST_CASE("Sizes that would wrap are refused wherever memory is made of them", "[core]") {
  constexpr Index huge = Index(1) << 33, wide = (Index(1) << 32) + 3;
  CHECK(code_of([] { Matrix<float>(-2, -3); }) == ErrorCode::option);
  CHECK(code_of([] { Matrix<float>(huge, Index(1) << 31); }) == ErrorCode::option);
  CHECK(code_of([] { Matrix<double>(Index(1) << 31, Index(1) << 30); }) == ErrorCode::option);  // bytes, not numbers
  CHECK(code_of([] { WeightPanels<float>::bytes_for(huge, Index(1) << 31); }) == ErrorCode::option);
  CHECK(code_of([] { RankBlocks::uniform(4, wide); }) == ErrorCode::option);
  CHECK(code_of([] { RankBlocks::uniform(4, Index(1) << 30); }) == ErrorCode::option);
  CHECK(code_of([] { RankBlocks::uniform(wide, 1); }) == ErrorCode::option);
  CHECK(code_of([] { RankBlocks::uniform(-1, 1); }) == ErrorCode::option);
  Arena measure;
  CHECK(code_of([&] { measure.matrix<float>(huge, Index(1) << 31); }) == ErrorCode::option);
  CHECK(code_of([&] { measure.array<float>(-1); }) == ErrorCode::option);
  measure.array<char>(most - 100);
  CHECK_NOTHROW(measure.array<char>(most - 100));  // together below 2^64
  CHECK(code_of([&] { measure.array<char>(most - 100); }) == ErrorCode::option);
  std::vector<float> six(6);
  CHECK(code_of([&] { View<float>(std::span(six), -2, -3); }) == ErrorCode::option);
  CHECK(code_of([&] { View<float>(std::span(six), 2, 4); }) == ErrorCode::shape);
  CHECK(code_of([] { Int8BlockWeight(-2, -3, std::vector<std::int8_t>(6), {}); }) == ErrorCode::option);
  CHECK(code_of([] { Nf4Weight(FourBitParts{.rows = -2, .cols = -3, .weight = {0, 0, 0}}); }) == ErrorCode::option);
}

TEST_CASE("A layer whose pairs or ranks would not fit their ints is refused when its workspace is made", "[core]") {
  Rng rng(1);
  const auto layer = [&](Index rank) {
    return ExpertLinear(LowRank<DenseFactors<float>>({.in = 2, .out = 2, .experts = 2, .rank = rank}, rng),
                        NoBase<float>(2, 2), Reference{});
  };
  CHECK(code_of([&] { layer(1024).workspace_bytes(Index(1) << 21); }) ==
        ErrorCode::option);  // 2^22 pairs of 2^10 ranks
  CHECK(code_of([&] { layer(1).workspace_bytes(Index(1) << 31); }) == ErrorCode::option);
  CHECK(code_of([&] { layer(1).workspace_bytes(Index(1) << 40, Index(1) << 40); }) == ErrorCode::option);
  CHECK(code_of([&] { layer(1).workspace_bytes(most); }) == ErrorCode::option);
  CHECK_NOTHROW(layer(1).workspace_bytes(Index(1) << 20));
}
