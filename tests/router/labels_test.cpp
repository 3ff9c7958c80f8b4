// SPDX-License-Identifier: MIT
#include "mole/router/labels.hpp"

#include "core/error_code.hpp"
#include "mole/core/routing.hpp"
#include "support/catch.hpp"

using namespace mole;

TEST_CASE("All tokens of a sequence have its label", "[router]") {
  const std::vector<Index> begin{0, 2, 2, 5};
  const std::vector<int> of_sequence{7, 8, 1, -1};
  const Pass pass{.sequence_begin = begin};
  CHECK(labels_of_sequences(of_sequence, 6, pass) == std::vector<int>{7, 7, 1, 1, 1, -1});
  CHECK(labels_of_sequences(std::vector<int>{3}, 2, {}) == std::vector<int>{3, 3});
  CHECK(labels_of_sequences(std::vector<int>{3}, 0, {}).empty());
  CHECK(test::code_of([&] { labels_of_sequences(std::vector<int>{3}, 6, pass); }) == ErrorCode::shape);
  CHECK(test::code_of([&] { labels_of_sequences(of_sequence, 4, pass); }) == ErrorCode::shape);
}

TEST_CASE("Round-robin gives each expert every E-th token, also of a batch that arrives in pieces", "[router]") {
  CHECK(round_robin_labels(5, 3) == std::vector<int>{0, 1, 2, 0, 1});
  CHECK(round_robin_labels(2, 3, {.first_token = 5}) == std::vector<int>{2, 0});
  CHECK(round_robin_labels(0, 3).empty());
  CHECK(test::code_of([] { round_robin_labels(2, 0); }) == ErrorCode::option);
}

TEST_CASE("A hash sends the same id to the same expert, and ids to all experts alike", "[router]") {
  std::vector<int> ids(8000);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = int(i % 4000);
  const std::vector<int> labels = hash_labels(ids, 8, 3);
  std::vector<int> counts(8);
  for (std::size_t i = 0; i < 4000; ++i) {
    CHECK(labels[i] == labels[i + 4000]);
    ++counts[std::size_t(labels[i])];
  }
  for (int count : counts) CHECK(std::abs(count - 500) < 100);
  CHECK(hash_labels(ids, 8, 4) != labels);
  CHECK_NOTHROW(Routing<float>::from_labels(hash_labels(std::vector<int>{-1, 5}, 8), 8));
  CHECK(test::code_of([&] { hash_labels(ids, 0); }) == ErrorCode::option);
}
