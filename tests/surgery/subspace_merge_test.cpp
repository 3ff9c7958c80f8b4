// SPDX-License-Identifier: MIT
#include "mole/surgery/subspace_merge.hpp"

#include "core/decompositions.hpp"
#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/tolerance.hpp"
#include "surgery/adapters.hpp"

using namespace mole;
using namespace mole::test;

namespace {

/// U U^T mean of the leading `rank` left singular vectors of [W_1 S_1 ... W_n S_n], in plain loops.
Matrix<double> projected_mean(const std::vector<Matrix<double>>& updates, const std::vector<double>& shares, Index rank,
                              const std::vector<Matrix<double>>& inputs = {}) {
  const Index out = updates[0].rows(), in = updates[0].cols();
  Matrix<double> mean(out, in), all(out, in * Index(updates.size()));
  for (std::size_t e = 0; e < updates.size(); ++e)
    for (Index o = 0; o < out; ++o)
      for (Index i = 0; i < in; ++i) {
        mean(o, i) += shares[e] * updates[e](o, i);
        for (Index k = 0; k < in; ++k)
          all(o, Index(e) * in + k) += updates[e](o, i) * (inputs.empty() ? double(i == k) : inputs[e](i, k));
      }
  const Svd<double> of_union = svd(all);
  Matrix<double> projected(out, in);
  for (Index j = 0; j < std::min(rank, out); ++j)
    for (Index i = 0; i < in; ++i) {
      double along = 0;
      for (Index o = 0; o < out; ++o) along += of_union.u(o, j) * mean(o, i);
      for (Index o = 0; o < out; ++o) projected(o, i) += of_union.u(o, j) * along;
    }
  return projected;
}

template <class T>
std::vector<Matrix<double>> updates_of(const std::vector<Adapter<T>>& adapters) {
  std::vector<Matrix<double>> updates;
  for (const auto& adapter : adapters) updates.push_back(update_of(adapter));
  return updates;
}

}  // namespace

TEMPLATE_TEST_CASE("Experts merge to their mean, projected onto the directions they share", "[surgery]", float,
                   double) {
  using T = TestType;
  const auto adapters = random_adapters<T>({2, 1, 3}, {2, 0.5, 1});
  const std::vector<double> counts{3, 12, 5}, shares{0.15, 0.6, 0.25};
  const auto updates = updates_of(adapters);
  const Matrix<double> mean = update_of(adapters, shares);
  double before = 1;
  for (const Index rank : {1, 2, 4, 6, 9}) {
    const auto merged = subspace_merge(weighted(adapters, counts), {.rank = rank, .scale = 0.5});
    CAPTURE(rank);
    CHECK(merged.adapter.rank() == std::min<Index>(rank, 6));
    const Matrix<double> found = update_of(merged.adapter);
    CHECK(relative_distance(found, projected_mean(updates, shares, rank)) < Tolerance<T>::sum(6));
    CHECK(std::abs(merged.error - relative_distance(found, mean)) < 1e-13);
    CHECK(merged.error <= before);
    before = merged.error + Tolerance<T>::sum(6);
  }
  CHECK(before < 2 * Tolerance<T>::sum(6));
}

TEST_CASE("Without truncation the merged expert is the mean, however inputs count", "[surgery]") {
  const auto adapters = random_adapters<double>({2, 3}, {2, 0.5});
  const std::vector<Matrix<double>> inputs{support::random_matrix<double>(adapter_in, adapter_in, 31),
                                           support::random_matrix<double>(adapter_in, adapter_in, 32)};
  const SubspaceMergeOptions counted{.inputs = {inputs[0].view(), inputs[1].view()}};
  for (const SubspaceMergeOptions& options : {SubspaceMergeOptions{}, counted}) {
    const auto merged = subspace_merge(weighted(adapters, {1, 3}), options);
    CHECK(relative_distance(update_of(merged.adapter), update_of(adapters, {0.25, 0.75})) < 1e-13);
    CHECK(merged.error < 1e-13);
  }
  SubspaceMergeOptions truncated = counted;
  truncated.rank = 2;
  const auto found = subspace_merge(weighted(adapters, {1, 3}), truncated);
  const auto expected = projected_mean(updates_of(adapters), {0.25, 0.75}, 2, inputs);
  CHECK(relative_distance(update_of(found.adapter), expected) < 1e-12);
  CHECK(relative_distance(expected, projected_mean(updates_of(adapters), {0.25, 0.75}, 2)) > 1e-3);
}

TEST_CASE("Whole weights merge as the same experts given as factors", "[surgery]") {
  const auto adapters = random_adapters<double>({4, 7, 5}, {2, 0.5, 1});
  const std::vector<double> counts{1, 0, 4};
  const auto updates = updates_of(adapters);
  const std::vector<View<const double>> views(updates.begin(), updates.end());
  for (const Index rank : {0, 1, 5}) {
    const auto of_factors = subspace_merge(weighted(adapters, counts), {.rank = rank});
    const auto of_weights = subspace_merge(views, counts, {.rank = rank});
    CHECK(relative_distance(update_of(of_weights.adapter), update_of(of_factors.adapter)) < 1e-12);
    CHECK(std::abs(of_weights.error - of_factors.error) < 1e-12);
    for (std::size_t j = 0; j < 9; ++j) CHECK(std::abs(of_weights.s[j] - of_factors.s[j]) < 1e-12);
  }
}

TEST_CASE("Equal experts, other orders, and all counts times a number merge to the same", "[surgery]") {
  const auto one = random_adapters<double>({3}, {2});
  const auto equal = subspace_merge<double>({{one[0], 5}, {one[0], 1}}, {.rank = 3});
  CHECK(relative_distance(update_of(equal.adapter), update_of(one[0])) < 1e-13);
  const auto adapters = random_adapters<double>({3, 2}, {1, 1});
  const auto expected = update_of(subspace_merge(weighted(adapters, {1, 3}), {.rank = 2}).adapter);
  const auto again = [&](const std::vector<WeightedAdapter<double>>& experts) {
    return relative_distance(update_of(subspace_merge(experts, {.rank = 2}).adapter), expected);
  };
  CHECK(again({{adapters[1], 3}, {adapters[0], 1}}) < 1e-13);
  CHECK(again({{adapters[0], 7}, {adapters[1], 21}}) < 1e-13);
}

TEST_CASE("Experts that nobody chose count equally; no, negative and unequal ones are refused", "[surgery]") {
  const auto adapters = random_adapters<double>({3, 2}, {1, 1});
  CHECK(relative_distance(update_of(subspace_merge(weighted(adapters, {0, 0})).adapter),
                          update_of(adapters, {0.5, 0.5})) < 1e-13);
  CHECK(code_of([] { subspace_merge<double>({}); }) == ErrorCode::option);
  CHECK(code_of([&] { subspace_merge(weighted(adapters, {1, -1})); }) == ErrorCode::option);
  CHECK(code_of([&] { subspace_merge(weighted(adapters, {1, 1}), {.rank = -1}); }) == ErrorCode::option);
  CHECK(code_of([&] { subspace_merge(weighted(adapters, {1, 1}), {.scale = 0}); }) == ErrorCode::option);
  const Matrix<double> small(2, 2), other(3, 2);
  CHECK(code_of([&] { subspace_merge(weighted(adapters, {1, 1}), {.inputs = {small.view()}}); }) == ErrorCode::shape);
  const std::vector<View<const double>> both{small.view(), other.view()};
  CHECK(code_of([&] { subspace_merge(both, {1, 1}); }) == ErrorCode::shape);
  CHECK(code_of([&] { subspace_merge(both, {1}); }) == ErrorCode::shape);
}
