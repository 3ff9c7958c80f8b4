// SPDX-License-Identifier: MIT
#include "mole/surgery/merge_factors.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/tolerance.hpp"
#include "surgery/adapters.hpp"

using namespace mole;
using namespace mole::test;

TEMPLATE_TEST_CASE("Factors are summed under roots of the weights, whose sign A has", "[surgery]", float, double) {
  using T = TestType;
  const auto adapters = random_adapters<T>({3, 3}, {2, 0.5});
  const std::vector<double> weights{-0.5, 3};
  for (const double scale : {1.0, -0.25}) {
    const auto merged = merge_factors(weighted(adapters, weights), {.scale = scale});
    Matrix<double> a(3, adapter_in), b(3, adapter_out);
    for (std::size_t i = 0; i < 2; ++i) {
      const double factor = weights[i] * adapters[i].scale / scale, root = std::sqrt(std::abs(factor));
      for (Index j = 0; j < 3; ++j) {
        for (Index c = 0; c < adapter_in; ++c) a(j, c) += (factor < 0 ? -root : root) * double(adapters[i].a(j, c));
        for (Index c = 0; c < adapter_out; ++c) b(j, c) += root * double(adapters[i].b(j, c));
      }
    }
    CHECK(difference(merged.adapter.a.view(), a.view()) <= Tolerance<T>::sum(2));
    CHECK(difference(merged.adapter.b.view(), b.view()) <= Tolerance<T>::sum(2));
    CHECK(merged.adapter.scale == scale);
    const Matrix<double> exact = update_of(adapters, weights);
    CHECK(std::abs(merged.error - relative_distance(update_of(merged.adapter), exact)) < 1e-13 * merged.error);
    CHECK(merged.error > 0.1);
  }
}

TEMPLATE_TEST_CASE("One adapter of weight 1, its factors merged, is itself bit for bit", "[surgery]", float, double) {
  using T = TestType;
  auto adapters = random_adapters<T>({4}, {1.7});
  adapters[0].a(1, 2) = -T(0);
  const auto merged = merge_factors(weighted(adapters, {1}), {.scale = 1.7});
  CHECK(support::same_bits(merged.adapter.a, adapters[0].a));
  CHECK(support::same_bits(merged.adapter.b, adapters[0].b));
  CHECK(merged.error < 1e-15);
}

TEST_CASE("Two copies with weights 1/2, merged by factors, give twice the update, and the error says so", "[surgery]") {
  const auto one = random_adapters<double>({3}, {2});
  const auto merged = merge_factors<double>({{one[0], 0.5}, {one[0], 0.5}});
  Matrix<double> twice = update_of(one[0]);
  for (double& value : twice.elements()) value *= 2;
  CHECK(support::largest_difference(update_of(merged.adapter), twice) < 1e-14);
  CHECK(std::abs(merged.error - 1) < 1e-14);
}

TEST_CASE("TIES of copies that keep everything is the copy, whatever their number", "[surgery]") {
  const auto one = random_adapters<double>({3}, {1});
  for (const SignElection signs : {SignElection::total, SignElection::frequency}) {
    const Combination ties{.pruning = Pruning::magnitude, .signs = signs};
    const auto merged = merge_factors<double>({{one[0]}, {one[0]}, {one[0]}}, {.combination = ties});
    CHECK(support::largest_difference(update_of(merged.adapter), update_of(one[0])) < 1e-14);
    CHECK(std::abs(merged.error - 2.0 / 3) < 1e-14);  // a mean, compared with the sum
  }
}

TEST_CASE("DARE draws other masks for A and for B, and for each adapter", "[surgery]") {
  Adapter<double> ones{Matrix<double>(2, 12), Matrix<double>(2, 12)};
  fill(ones.a.view(), 1);
  fill(ones.b.view(), 1);
  const Combination dare{.pruning = Pruning::random, .density = 0.5, .seed = 3};
  const auto one = merge_factors<double>({{ones}}, {.combination = dare}).adapter;
  CHECK_FALSE(support::same_bits(one.a, one.b));
  const auto first = merge_factors<double>({{ones, 1}, {ones, 0}}, {.combination = dare}).adapter;
  const auto second = merge_factors<double>({{ones, 0}, {ones, 1}}, {.combination = dare}).adapter;
  CHECK(support::same_bits(first.a, one.a));
  CHECK_FALSE(support::same_bits(second.a, one.a));
}

TEST_CASE("Factors of other ranks or of nobody are not merged", "[surgery]") {
  const auto adapters = random_adapters<double>({3, 5}, {1, 1});
  CHECK(code_of([&] { merge_factors(weighted(adapters, {1, 1})); }) == ErrorCode::shape);
  CHECK(text_of([&] {
          merge_factors(weighted(adapters, {1, 1}));
        }) ==
        "merge_factors: rank of adapter 1: expected 3, found 5; different ranks are for concatenate_adapters or "
        "merge_updates");
  CHECK(code_of([] { merge_factors<double>({}); }) == ErrorCode::option);
  CHECK(code_of([&] { merge_factors<double>({{adapters[0]}}, {.combination = {.density = 0}}); }) == ErrorCode::option);
  CHECK(code_of([&] { merge_factors<double>({{adapters[0]}}, {.scale = 0}); }) == ErrorCode::option);
}
