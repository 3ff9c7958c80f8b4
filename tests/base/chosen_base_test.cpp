// SPDX-License-Identifier: MIT
#include "mole/base/chosen_base.hpp"

#include "core/error_code.hpp"
#include "mole/base/dense_base.hpp"
#include "mole/base/packed_base.hpp"
#include "mole/layer/any_linear.hpp"
#include "mole/method/mola.hpp"
#include "mole/testing/base_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;

namespace {

template <class T>
using DenseOrPacked = ChosenBase<DenseBase<View<const T>>, PackedBase<T>>;

}  // namespace

static_assert(TrainableBasePolicy<DenseOrPacked<float>> && LinearBasePolicy<DenseOrPacked<double>>);

TEMPLATE_TEST_CASE("ChosenBase keeps the laws of bases, whichever it is", "[base]", float, double) {
  using T = TestType;
  const auto weight = support::random_matrix<T>(70, 35, 1), bias = support::random_matrix<T>(1, 70, 2);
  for (const DenseOrPacked<T>& base : {DenseOrPacked<T>(DenseBase(weight, bias.elements())),
                                       DenseOrPacked<T>(PackedBase<T>(weight, bias.elements()))}) {
    CHECK(laws::broken_base_law(base) == "");
    CHECK(laws::broken_affine_base_law(base) == "");
    CHECK((base.in() == 35 && base.out() == 70 && base.weights()(69, 34) == weight(69, 34)));
  }
}

TEST_CASE("A layer has the bits on a ChosenBase that it has on the base itself", "[base]") {
  const auto weight = support::random_matrix<float>(75, 50, 1), bias = support::random_matrix<float>(1, 75, 2);
  const auto results_on = [&](const auto& base, Index tokens) {
    Rng rng(5);
    const auto layer = support::with_random_b(mola({.experts = 4, .rank = 3, .k = 2}, base, rng));
    const auto x = support::random_matrix<float>(tokens, 50, 8), d_y = support::random_matrix<float>(tokens, 75, 9);
    Matrix<float> y(tokens, 75), d_x(tokens, 50);
    auto work = layer.workspace(tokens);
    auto gradients = layer.gradients();
    layer.forward(x, y, work, {.training = true});
    layer.backward(x, d_y, d_x, gradients, work);
    return std::vector<Matrix<float>>{y, d_x, gradients.experts.lora_A, gradients.experts.lora_B,
                                      gradients.router.weight};
  };
  const DenseBase dense(weight, bias.elements());
  const PackedBase<float> packed(weight, bias.elements());
  for (Index tokens : {1, 7, 70}) {
    CAPTURE(tokens);
    const auto of_dense = results_on(dense, tokens), of_packed = results_on(packed, tokens);
    const auto chosen_dense = results_on(DenseOrPacked<float>(dense), tokens);
    const auto chosen_packed = results_on(DenseOrPacked<float>(packed), tokens);
    for (std::size_t i = 0; i < of_dense.size(); ++i) {
      CHECK(support::same_bits(of_dense[i], chosen_dense[i]));
      CHECK(support::same_bits(of_packed[i], chosen_packed[i]));
    }
  }
}

TEST_CASE("The base of a layer changes its kind, and not its sizes", "[base]") {
  const auto weight = support::random_matrix<float>(6, 5, 1), other = support::random_matrix<float>(6, 5, 2);
  Rng rng(3);
  AnyLinear<float> layer(mola({.experts = 3, .rank = 2}, DenseOrPacked<float>(DenseBase(weight)), rng), 4);
  const auto x = support::random_matrix<float>(4, 5, 4);
  Matrix<float> y(4, 6), expected(4, 6);
  layer.set_base(DenseOrPacked<float>(PackedBase<float>(other)));
  layer.forward(x, y);
  layer.set_base(DenseOrPacked<float>(DenseBase(other)));
  layer.forward(x, expected);
  CHECK(support::largest_difference(y, expected) < 1e-5);
  const Matrix<float> wide(6, 7);
  CHECK(mole::test::code_of([&] { layer.set_base(DenseOrPacked<float>(DenseBase(wide))); }) == ErrorCode::shape);
  const DenseOrPacked<float> chosen{DenseBase(weight)};
  CHECK(chosen.target<DenseBase<View<const float>>>() != nullptr);
  CHECK(chosen.target<PackedBase<float>>() == nullptr);
}
