// SPDX-License-Identifier: MIT
#include "mole/router/balanced_hash.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <cmath>

using namespace mole;

TEST_CASE("The most frequent ids are dealt out first, each to the expert with least to do", "[router]") {
  const std::vector<double> frequencies{1, 5, 0, 4, 3, 1};
  const BalancedHash hash(frequencies, 2);
  // 5 -> 0, 4 -> 1, 3 -> 1 (4 < 5), 1 -> 0 (5 < 7), 1 -> 0 (6 < 7), 0 -> 0 (7 = 7)
  CHECK(hash.labels(std::vector<int>{0, 1, 2, 3, 4, 5}) == std::vector<int>{0, 0, 0, 1, 1, 0});
}

TEST_CASE("Ids as frequent as those of a language load all experts alike, where a plain hash would not", "[router]") {
  std::vector<double> frequencies(1000);
  for (std::size_t i = 0; i < frequencies.size(); ++i) frequencies[i] = 1 / double(i + 10);
  const BalancedHash hash(frequencies, 8);
  std::vector<double> loads(8);
  for (std::size_t i = 0; i < frequencies.size(); ++i) loads[std::size_t(hash(int(i)))] += frequencies[i];
  const auto [least, most] = std::ranges::minmax(loads);
  CHECK(most / least < 1.002);
}

TEST_CASE("BalancedHash refuses no expert, impossible frequencies and ids out of its table", "[router]") {
  using test::code_of;
  CHECK(code_of([] { BalancedHash(std::vector<double>{1}, 0); }) == ErrorCode::option);
  CHECK(code_of([] { BalancedHash(std::vector<double>{-1}, 2); }) == ErrorCode::option);
  CHECK(code_of([] { BalancedHash(std::vector<double>{std::nan("")}, 2); }) == ErrorCode::option);
  const BalancedHash hash(std::vector<double>{1, 1}, 2);
  CHECK(code_of([&] { hash(2); }) == ErrorCode::option);
  CHECK(code_of([&] { hash(-1); }) == ErrorCode::option);
}
