// SPDX-License-Identifier: MIT
#include "mole/surgery/merge.hpp"

#include "core/error_code.hpp"
#include "mole/layer/any_linear.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;
using support::output;
using support::random_matrix;
using support::same_bits;
using test::code_of;
using test::text_of;

TEST_CASE("A layer merges when its gate is the same for all tokens, and says why when not", "[surgery]") {
  Rng rng(5);
  const Matrix<double> weight = random_matrix<double>(13, 11, 6);
  const auto experts = [&] {
    return LowRank<DenseFactors<double>>({.in = 11, .out = 13, .experts = 3, .rank = 2, .alpha = 4}, rng);
  };
  const auto layer = support::with_random_b(MixtureLinear(NoRouter<double>(3), Gate{Identity{}, All{}, Unit{}},
                                                          experts(), DenseBase(weight.view()), Reference{}));
  CHECK(merge_obstacle(layer).empty());
  CHECK(can_merge(layer));
  Matrix<double> merged = weight;
  merge_into(layer, merged);
  const auto x = random_matrix<double>(9, 11, 8);
  Matrix<double> y(9, 13);
  Reference{}.product_nt(x, merged, y.view());
  CHECK(support::largest_difference(y, output(layer, x)) < 1e-13);

  const auto routed = support::routed_layer<double>({}, support::top_2());
  Matrix<double> untouched = weight;
  CHECK(code_of([&] { merge_into(routed, untouched); }) == ErrorCode::not_mergeable);
  CHECK(same_bits(untouched, weight));
  CHECK_FALSE(can_merge(routed));
  CHECK(merge_obstacle(routed).find("chooses experts for each token") != std::string::npos);
  Matrix<double> wrong(12, 11);
  CHECK(code_of([&] { merge_into(layer, wrong); }) == ErrorCode::shape);
}

TEST_CASE("A layer merges behind one type as it does by its own", "[surgery]") {
  const auto layer = support::routed_layer<double>({}, Gate{Softmax{}, All{}, Unit{}});
  Matrix<double> weight(layer.out(), layer.in()), by_any = weight;
  merge_into(layer, weight.view());
  AnyLinear<double>(layer, 4).merge_into(by_any.view());
  CHECK(support::same_bits(weight, by_any));
}

TEST_CASE("Experts of a routing from outside cannot be merged", "[surgery]") {
  const auto routed = support::routed_layer<double>({}, support::top_2());
  const ExpertLinear outside(routed.experts(), routed.base());
  CHECK_FALSE(can_merge(outside));
  Matrix<double> weight(routed.out(), routed.in());
  CHECK(text_of([&] { merge_into(outside, weight.view()); }) ==
        "merge_into: this layer cannot be merged: its routing comes from outside");
  for (double element : weight.elements()) CHECK(element == 0);
}
