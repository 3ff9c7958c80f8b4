// SPDX-License-Identifier: MIT
#include "mole/surgery/merge_updates.hpp"

#include "core/decompositions.hpp"
#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/tolerance.hpp"
#include "surgery/adapters.hpp"

using namespace mole;
using namespace mole::test;

namespace {
/// The distance of the best approximation of that rank.
double least_error(const Matrix<double>& m, Index rank) {
  const Svd<double> all = svd(m);
  double rest = 0, sum = 0;
  for (std::size_t j = 0; j < all.s.size(); ++j) {
    sum += all.s[j] * all.s[j];
    if (Index(j) >= rank) rest += all.s[j] * all.s[j];
  }
  return std::sqrt(rest / sum);
}
}  // namespace

TEMPLATE_TEST_CASE("Merged updates are the best approximation of their weighted sum", "[surgery]", float, double) {
  using T = TestType;
  const auto adapters = random_adapters<T>({3, 1, 4}, {2, 0.5, 1});
  const std::vector<double> weights{0.5, -1.25, 2};
  const Matrix<double> exact = update_of(adapters, weights);
  double before = 2;
  for (const Index rank : {1, 2, 4, 7, 8, 9, 15}) {
    const auto merged = merge_updates(weighted(adapters, weights), {.rank = rank, .scale = 0.5});
    CAPTURE(rank, merged.error);
    CHECK(merged.adapter.rank() == rank);
    CHECK(merged.adapter.scale == 0.5);
    CHECK(std::abs(merged.error - least_error(exact, rank)) < Tolerance<T>::sum(8));
    CHECK(std::abs(relative_distance(update_of(merged.adapter), exact) - merged.error) < 1e-12);
    CHECK(merged.error <= before);
    before = merged.error + Tolerance<T>::sum(8);
  }
  CHECK(before < 2 * Tolerance<T>::sum(8));
  CHECK(merge_updates(weighted(adapters, weights)).adapter.rank() == 4);  // the largest
}

TEST_CASE("A random decomposition of the sum comes to the same", "[surgery]") {
  const auto adapters = random_adapters<double>({3, 2}, {2, 0.5});
  const Combination ties{.pruning = Pruning::magnitude, .density = 0.6, .signs = SignElection::total};
  for (const Combination& how : {Combination{}, ties}) {
    const auto exact = merge_updates(weighted(adapters, {1, 2}), {.rank = 3, .combination = how});
    const auto found =
        merge_updates(weighted(adapters, {1, 2}), {.rank = 3, .combination = how, .power_iterations = 2});
    CHECK(relative_distance(update_of(found.adapter), update_of(exact.adapter)) < 1e-12);
  }
}

TEST_CASE("Updates are pruned and elected as such", "[surgery]") {
  const auto adapters = random_adapters<double>({3, 2, 4}, {2, 0.5, 1});
  const std::vector<double> weights{1, -0.5, 2};
  for (const SignElection signs : {SignElection::none, SignElection::total, SignElection::frequency})
    for (const Pruning pruning : {Pruning::magnitude, Pruning::random}) {
      const Combination how{.pruning = pruning, .density = 0.4, .signs = signs, .seed = 7};
      std::vector<Matrix<double>> updates;
      for (const auto& adapter : adapters) updates.push_back(update_of(adapter));
      const Matrix<double> expected = mole::detail::combined(updates, weights, how);
      const auto merged = merge_updates(weighted(adapters, weights), {.rank = adapter_out, .combination = how});
      CHECK(relative_distance(update_of(merged.adapter), expected) < 1e-13);
      const Matrix<double> exact = update_of(adapters, weights);
      CHECK(std::abs(merged.error - relative_distance(expected, exact)) < 1e-12);
    }
}

TEST_CASE("The release's second scale is there on demand, in sums and in combinations", "[surgery]") {
  const auto adapters = random_adapters<double>({3, 2}, {2, 0.5});
  const Matrix<double> expected = update_of(adapters, {1 * 2.0, -3 * 0.5});
  // all signs count and all numbers stay, but updates are formed
  const Combination all{.pruning = Pruning::random, .density = 1 - 1e-15};
  for (const Combination& how : {Combination{}, all}) {
    const auto merged =
        merge_updates(weighted(adapters, {1, -3}), {.rank = 5, .combination = how, .scale_twice = true});
    CHECK(relative_distance(update_of(merged.adapter), expected) < 1e-13);
    CHECK(merged.error > 0.1);
  }
}

TEST_CASE("A clamp cuts both factors to a quantile of their numbers", "[surgery]") {
  const auto adapters = random_adapters<double>({3, 2}, {2, 0.5});
  const auto whole = merge_updates(weighted(adapters, {1, 1}), {.rank = 4}).adapter;
  std::vector<double> numbers(whole.a.elements().begin(), whole.a.elements().end());
  numbers.insert(numbers.end(), whole.b.elements().begin(), whole.b.elements().end());
  std::sort(numbers.begin(), numbers.end());
  REQUIRE(numbers.size() == 80);
  const double bound = numbers[71] + 0.1 * (numbers[72] - numbers[71]);  // 0.9 * 79 = 71.1
  const auto cut = merge_updates(weighted(adapters, {1, 1}), {.rank = 4, .clamp = 0.9}).adapter;
  for (std::size_t i = 0; i < whole.a.elements().size(); ++i)
    CHECK(std::abs(cut.a.elements()[i] - std::clamp(whole.a.elements()[i], -bound, bound)) < 1e-14);
  for (std::size_t i = 0; i < whole.b.elements().size(); ++i)
    CHECK(std::abs(cut.b.elements()[i] - std::clamp(whole.b.elements()[i], -bound, bound)) < 1e-14);
}

TEST_CASE("Merged updates have orthonormal rows of A; options out of range are refused", "[surgery]") {
  const auto adapters = random_adapters<double>({3, 2}, {2, 0.5});
  const auto all = weighted(adapters, {1, 1});
  const auto merged = merge_updates(all, {.rank = 4}).adapter;
  CHECK(orthonormality_error(mole::detail::transposed(merged.a)) < 1e-14);
  CHECK(code_of([] { merge_updates<double>({}); }) == ErrorCode::option);
  CHECK(code_of([&] { merge_updates(all, {.rank = -1}); }) == ErrorCode::option);
  CHECK(code_of([&] { merge_updates(all, {.combination = {.density = 2}}); }) == ErrorCode::option);
  CHECK(code_of([&] { merge_updates(all, {.clamp = 1.5}); }) == ErrorCode::option);
  CHECK(code_of([&] { merge_updates(all, {.power_iterations = -1}); }) == ErrorCode::option);
  const auto none = random_adapters<double>({0}, {1});
  CHECK(merge_updates(weighted(none, {1})).adapter.rank() == 0);
}
