// SPDX-License-Identifier: MIT
#include "mole/surgery/diverse_groups.hpp"

#include "core/error_code.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/dense_factors.hpp"
#include "mole/surgery/adapters_of.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

#include <limits>

using namespace mole;

namespace {

Matrix<double> some_similarity(Index adapters, std::uint64_t seed) {
  Matrix<double> similarity = support::random_matrix<double>(adapters, adapters, seed);
  for (double& number : similarity.elements()) number = std::abs(number);
  return similarity;
}

}  // namespace

TEST_CASE("The similarity of adapters sees neither signs nor factors, and is the number of tensors with itself",
          "[surgery]") {
  std::vector<Matrix<double>> tensors;
  for (std::uint64_t seed = 0; seed < 6; ++seed)
    tensors.push_back(support::random_matrix<double>(seed % 2 == 0 ? 3 : 5, 4, seed + 1));
  const auto similarity = [&] {
    std::vector<std::vector<View<const double>>> adapters;
    for (std::size_t i = 0; i < 3; ++i) adapters.push_back({tensors[2 * i], tensors[2 * i + 1]});
    return tensor_similarity<double>(adapters);
  };
  const auto before = similarity();
  for (Index i = 0; i < 3; ++i) {
    CHECK(std::abs(before(i, i) - 2) < 1e-14);
    for (Index j = 0; j < 3; ++j) CHECK(before(i, j) == before(j, i));
  }
  for (double& number : tensors[2].elements()) number *= -3;
  for (double& number : tensors[5].elements()) number *= 0.25;
  CHECK(support::largest_difference(similarity(), before) < 1e-14);
  tensors[0].set_zero();
  CHECK(std::abs(similarity()(0, 0) - 1) < 1e-14);
}

TEST_CASE("The most diverse groups are those of brute force, in order, ties by their members", "[surgery]") {
  for (const Index all : {1, 4, 6, 8})
    for (const Index size : {1, 2, 4}) {
      if (size > all) continue;
      const auto similarity = some_similarity(all, std::uint64_t(all + size));
      std::vector<std::pair<double, std::vector<int>>> expected;
      for (unsigned set = 0; set < 1u << all; ++set) {
        std::vector<int> members;
        for (int i = 0; i < int(all); ++i)
          if ((set >> i & 1u) != 0) members.push_back(i);
        if (Index(members.size()) != size) continue;
        double score = 0;
        for (std::size_t i = 0; i < members.size(); ++i)
          for (std::size_t j = i + 1; j < members.size(); ++j) score += similarity(members[i], members[j]);
        expected.emplace_back(score, members);
      }
      std::sort(expected.begin(), expected.end());
      const auto found = diverse_groups(similarity, size, 3);
      REQUIRE(found.size() == std::min<std::size_t>(3, expected.size()));
      for (std::size_t g = 0; g < found.size(); ++g) {
        CHECK(found[g].members == expected[g].second);
        CHECK(std::abs(found[g].score - expected[g].first) < 1e-14);
      }
    }
  Matrix<double> equal(5, 5);
  const auto tied = diverse_groups(equal, 2, 3);
  CHECK(tied[0].members == std::vector<int>{0, 1});
  CHECK(tied[2].members == std::vector<int>{0, 3});
}

TEST_CASE("A scale that is folded into B leaves what an adapter adds", "[surgery]") {
  Rng rng(1);
  LowRank<DenseFactors<double>> experts({.in = 11, .out = 9, .experts = 3, .rank = 4, .alpha = 10}, rng);
  fill_uniform(experts.parameters().lora_B.view(), 1, rng);
  auto folded = experts;
  for (Index e = 0; e < 3; ++e) {
    for (Index r = 0; r < 4; ++r)
      for (double& number : folded.parameters().lora_B.view().row(e * 4 + r)) number *= folded.scale()[std::size_t(e)];
    folded.scale()[std::size_t(e)] = 1;
    Matrix<double> before(9, 11), after(9, 11);
    experts.add_delta(e, 1, before.view());
    folded.add_delta(e, 1, after.view());
    CHECK(support::largest_difference(before, after) < 1e-14);
  }
}

TEST_CASE("Adapters that do not correspond, and groups that cannot be searched, are refused", "[surgery]") {
  const auto a = support::random_matrix<double>(3, 4, 1), b = support::random_matrix<double>(3, 5, 1);
  using Tensors = std::vector<std::vector<View<const double>>>;
  CHECK(test::code_of([&] { tensor_similarity<double>(Tensors{}); }) == ErrorCode::option);
  CHECK(test::code_of([&] { tensor_similarity<double>(Tensors{{a}, {b}}); }) == ErrorCode::shape);
  CHECK(test::code_of([&] { tensor_similarity<double>(Tensors{{a}, {a, a}}); }) == ErrorCode::shape);
  auto similarity = some_similarity(4, 1);
  CHECK(test::code_of([&] { diverse_groups(a, 2); }) == ErrorCode::shape);
  CHECK(test::code_of([&] { diverse_groups(similarity, 0); }) == ErrorCode::option);
  CHECK(test::code_of([&] { diverse_groups(similarity, 5); }) == ErrorCode::option);
  CHECK(test::code_of([&] { diverse_groups(similarity, 2, 0); }) == ErrorCode::option);
  CHECK(test::code_of([&] { diverse_groups(Matrix<double>(80, 80), 10); }) == ErrorCode::option);
  similarity(0, 1) = std::numeric_limits<double>::quiet_NaN();
  CHECK(test::code_of([&] { diverse_groups(similarity, 2); }) == ErrorCode::option);
}
