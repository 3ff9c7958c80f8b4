// SPDX-License-Identifier: MIT
#include "mole/core/memory/scratch_vector.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"

#include <array>
#include <numeric>
#include <vector>

using namespace mole;
using test::code_of;

namespace {
std::vector<int> elements(const ScratchVector<int>& vector) {
  return {vector.begin(), vector.end()};
}
}  // namespace

TEST_CASE("A scratch vector without room grows as a vector does", "[core]") {
  ScratchVector<int> grown;
  std::vector<int> expected;
  for (int i = 0; i < 1000; ++i) grown.push_back(i), expected.push_back(i);
  CHECK(elements(grown) == expected);
  CHECK(grown.back() == 999);
  grown.resize(1003, 7), expected.resize(1003, 7);
  CHECK(elements(grown) == expected);
  grown.resize(2), grown.resize(4);
  CHECK(elements(grown) == std::vector<int>{0, 1, 0, 0});
  grown.assign(3, 5);
  CHECK(elements(grown) == std::vector<int>{5, 5, 5});
  grown.clear();
  CHECK(grown.empty());
}

TEST_CASE("A scratch vector with room stays within it", "[core]") {
  std::array<int, 4> room{9, 9, 9, 9};
  ScratchVector<int> bounded{std::span<int>(room).first(3)};
  CHECK(bounded.empty());
  bounded.assign(3, 1);
  CHECK(code_of([&] { bounded.push_back(2); }) == ErrorCode::capacity);
  CHECK(code_of([&] { bounded.resize(4); }) == ErrorCode::capacity);
  CHECK(code_of([&] { bounded.assign(9, 4); }) == ErrorCode::capacity);
  CHECK(elements(bounded) == std::vector<int>{1, 1, 1});
  CHECK(room[3] == 9);
}

TEST_CASE("A copy of a scratch vector has memory of its own, a moved one keeps its own", "[core]") {
  std::array<int, 3> room{};
  ScratchVector<int> bounded{std::span<int>(room)};
  bounded.assign(3, 1);
  ScratchVector<int> copy = bounded;
  copy.push_back(2);
  CHECK(elements(copy) == std::vector<int>{1, 1, 1, 2});
  CHECK(elements(bounded) == std::vector<int>{1, 1, 1});
  ScratchVector<int> moved = std::move(bounded);
  CHECK(moved.data() == room.data());
  CHECK(bounded.empty());
  copy = std::move(moved);
  CHECK(copy.data() == room.data());
  CHECK(code_of([&] { copy.push_back(2); }) == ErrorCode::capacity);
}

TEST_CASE("A scratch vector takes its memory from the resource it is given", "[core]") {
  ScratchVector<int> none(std::pmr::null_memory_resource());
  CHECK_THROWS_AS(none.push_back(1), std::bad_alloc);
  CHECK(none.empty());
}
