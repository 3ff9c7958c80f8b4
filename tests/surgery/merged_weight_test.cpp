// SPDX-License-Identifier: MIT
#include "mole/surgery/merged_weight.hpp"

#include "core/error_code.hpp"
#include "mole/method/dora.hpp"
#include "mole/method/lora.hpp"
#include "mole/method/oft.hpp"
#include "mole/surgery/fold_gate.hpp"
#include "mole/surgery/merge.hpp"
#include "support/catch.hpp"
#include "support/guarded_matrix.hpp"
#include "support/layers.hpp"
#include "support/tolerance.hpp"
#include "surgery/gated_layers.hpp"

#include <random>
#include <string_view>
#include <utility>

using namespace mole;
using namespace mole::test;

TEMPLATE_TEST_CASE("Merged and unmerged a thousand times, the weight has its very bits", "[surgery]", float, double) {
  using T = TestType;
  Rng rng(1);
  auto weight = random_output<T>(13, 11, rng, {.padding = 2, .before = 1, .after = 1});
  const auto original = weight;
  Matrix<T> host(13, 11);
  auto layer = gated_lora(host, 5);
  MergedWeight<T> merged(weight.view());
  for (int cycle = 0; cycle < 1000; ++cycle) {
    fill_uniform(layer.experts().parameters().lora_B.view(), 1, rng);  // the layer goes on learning
    merged.merge(layer);
    CHECK(merged.merged());
    CHECK(difference(weight.view(), original.view()) > 0.1);
    merged.unmerge();
    CHECK_FALSE(merged.merged());
    CHECK(support::same_bits(weight.view(), original.view()));
    CHECK(weight.intact());
  }
}

TEST_CASE("A merged weight does what its layers do, and is merged anew from the original", "[surgery]") {
  Matrix<double> weight = support::random_matrix<double>(13, 11, 6);
  const Matrix<double> original = weight;
  const auto x = support::random_matrix<double>(9, 11, 8);
  auto layer = gated_lora(original, 5);
  MergedWeight<double> merged(weight.view());
  Rng rng(4);
  for (int round = 0; round < 3; ++round) {
    fill_uniform(layer.experts().parameters().lora_B.view(), 1, rng);
    merged.merge(layer);  // without an unmerge between
    Matrix<double> y(9, 13);
    Reference{}.product_nt(View<const double>(x), merged.weight(), y.view());
    CHECK(support::largest_difference(y, output_of(layer, x)) < 1e-13);
  }
  const Matrix<double> once = weight;
  merged.merge(layer, layer);
  for (std::size_t i = 0; i < weight.elements().size(); ++i)
    CHECK(std::abs(weight.elements()[i] + original.elements()[i] - 2 * once.elements()[i]) < 1e-14);
  merged.unmerge();
  merged.unmerge();
  CHECK(support::same_bits(weight, original));
}

TEST_CASE("What the host writes between an unmerge and a merge is the original from then on", "[surgery]") {
  Matrix<double> weight = support::random_matrix<double>(13, 11, 6);
  const auto layer = gated_lora(weight, 5);
  MergedWeight<double> merged(weight.view());
  for (double written : {7.0, 8.0}) {
    merged.merge(layer);
    merged.unmerge();
    weight(0, 0) = written;
    const Matrix<double> original = weight;
    merged.merge(layer);
    CHECK_FALSE(support::same_bits(weight, original));
    merged.unmerge();
    CHECK(weight(0, 0) == written);
    CHECK(support::same_bits(weight, original));
    weight(0, 1) = written;
    merged.unmerge();
    CHECK(weight(0, 1) == written);
  }
}

TEST_CASE("What cannot be merged is refused with the layer's reason, and the weight stays", "[surgery]") {
  Matrix<double> weight = support::random_matrix<double>(13, 11, 6);
  const Matrix<double> original = weight;
  const auto mixture = support::routed_layer<double>({}, support::top_2());
  const auto mergeable = gated_lora(original, 5);
  MergedWeight<double> merged(weight.view());
  for (bool already : {false, true}) {
    if (already) merged.merge(mergeable);
    const Matrix<double> before = weight;
    CHECK(code_of([&] { merged.merge(mixture); }) == ErrorCode::not_mergeable);
    CHECK(code_of([&] { merged.merge(mergeable, mixture); }) == ErrorCode::not_mergeable);
    CHECK(text_of([&] { merged.merge(mixture); }).find(merge_obstacle(mixture)) != std::string::npos);
    CHECK(code_of([&] { merged.merge(gated_lora(Matrix<double>(13, 12), 5)); }) == ErrorCode::shape);
    CHECK(support::same_bits(weight, before));
    CHECK(merged.merged() == already);
  }
  merged.unmerge();
  CHECK(support::same_bits(weight, original));
}

TEST_CASE("Layers that borrow the weight are measured by the original, whatever is merged before them", "[surgery]") {
  Rng rng(1);
  Matrix<double> weight = support::random_matrix<double>(13, 11, 6);
  const Matrix<double> original = weight;
  const DenseBase base{std::as_const(weight).view()};
  auto lora_layer = support::with_random_b(lora({.rank = 3}, base, rng));
  auto decomposed = dora({.rank = 2}, std::as_const(weight).view(), base, rng);
  auto rotated = oft({.block = 11}, std::as_const(weight).view(), base, rng);
  const auto jiggle = [&](auto& layer) {
    layer.for_each_tensor([&](std::string_view, View<double> tensor) {
      for (Index r = 0; r < tensor.rows(); ++r)
        for (double& number : tensor.row(r)) number += std::uniform_real_distribution<double>(-0.3, 0.3)(rng);
    });
  };
  jiggle(decomposed);
  jiggle(rotated);
  Matrix<double> expected = original;
  merge_into(lora_layer, expected.view());
  merge_into(decomposed, expected.view());
  merge_into(rotated, expected.view());
  MergedWeight<double> merged(weight.view());
  for (int round = 0; round < 2; ++round) {  // the second begins merged
    merged.merge(lora_layer, decomposed, rotated);
    CHECK(support::same_bits(weight, expected));
    CHECK(support::largest_difference(weight, original) > 0.1);
  }
  merged.unmerge();
  CHECK(support::same_bits(weight, original));
}

namespace {
/// Experts whose update cannot be had.
struct Refusing : LowRank<DenseFactors<double>> {
  using LowRank<DenseFactors<double>>::LowRank;
  void add_delta(Index, double, View<double>) const { throw Error(ErrorCode::not_mergeable, "no"); }
};
}  // namespace

TEST_CASE("A merge that fails half-way leaves the weight and what was merged before", "[surgery]") {
  Rng rng(1);
  Matrix<double> weight = support::random_matrix<double>(13, 11, 6);
  const Matrix<double> original = weight;
  const auto layer = support::with_random_b(lora({.rank = 3}, DenseBase{original.view()}, rng));
  const MixtureLinear refusing(NoRouter<double>(), layer.gating(), Refusing({.in = 11, .out = 13, .rank = 1}, rng),
                               DenseBase{original.view()});
  MergedWeight<double> merged(weight.view());
  CHECK_THROWS_AS(merged.merge(layer, refusing), Error);
  CHECK_FALSE(merged.merged());
  CHECK(support::same_bits(weight, original));
  merged.merge(layer);
  const Matrix<double> once = weight;
  CHECK_THROWS_AS(merged.merge(layer, layer, refusing), Error);
  CHECK(merged.merged());
  CHECK(support::same_bits(weight, once));
  merged.unmerge();
  CHECK(support::same_bits(weight, original));
}
