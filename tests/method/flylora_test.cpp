// SPDX-License-Identifier: MIT
// The preset is the composition that it says; what it computes is pinned by the golden test.
#include "mole/method/flylora.hpp"

#include "core/error_code.hpp"
#include "method/method_checks.hpp"
#include "mole/surgery/merge.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

namespace {

template <class Execution>
auto random_layer(FlyloraOptions options, Execution execution, std::uint64_t seed = 1) {
  Rng rng(seed);
  return support::with_random_b(flylora(options, DenseBase{weight, bias}, rng, execution), seed);
}

template <class Layer>
Matrix<double> dense_a(const Layer& layer) {
  Matrix<double> a(layer.experts().experts(), 11);
  NoScratch none;
  for (Index j = 0; j < a.rows(); ++j) layer.experts().factors().add_row(j, 1, a.view().row(j), none);
  return a;
}

/// The chosen ranks of each token, ascending.
template <class Layer>
std::vector<std::vector<int>> chosen(const Layer& layer) {
  auto work = layer.workspace(tokens.rows());
  layer.route(tokens, work);
  std::vector<std::vector<int>> all;
  for (Index n = 0; n < tokens.rows(); ++n) {
    all.emplace_back(work.routing.experts_of(n).begin(), work.routing.experts_of(n).end());
    std::sort(all.back().begin(), all.back().end());
  }
  return all;
}

}  // namespace

TEST_CASE("flylora takes the release's defaults", "[method]") {
  Rng rng(1);
  const auto layer = flylora({}, DenseBase{weight, bias}, rng);
  CHECK(layer.experts().experts() == 32);
  CHECK(layer.gating().select.k == 8);
  CHECK(layer.experts().scale()[0] == 2);
  CHECK(layer.experts().factors().nonzeros() == 2);  // 11 * 8 / 32, rounded down
  CHECK(flylora({.k = 1}, DenseBase{weight}, rng).experts().factors().nonzeros() == 1);
  CHECK(flylora({.nonzeros = 5}, DenseBase{weight}, rng).experts().factors().nonzeros() == 5);
  CHECK(test::text_of([&] { flylora({.k = 33}, DenseBase{weight}, rng); }).find("TopK") == 0);
  CHECK(test::code_of([&] { flylora({.rank = 0}, DenseBase{weight}, rng); }) == ErrorCode::option);
}

TEMPLATE_TEST_CASE("flylora's gradients are exact, whoever selects", "[method]", Reference, Simd<>) {
  for (FlySelect select : {FlySelect::magnitude, FlySelect::signed_value})
    CHECK(gradient_error(random_layer({.rank = 12, .k = 5, .dropout = 0.2, .select = select}, TestType{})) < 1e-8);
}

TEMPLATE_TEST_CASE("A detached flylora hands x the base's gradient alone", "[method]", Reference, Simd<>) {
  const auto layer = random_layer({.rank = 12, .k = 5, .detached = true}, TestType{});
  auto work = layer.workspace(40);
  auto gradients = layer.gradients();
  Matrix<double> y(40, 13), d_x(40, 11), expected(40, 11);
  layer.forward(tokens, y, work);
  layer.backward(tokens, y, d_x, gradients, work);
  Reference{}.product_nn(View<const double>(y), View<const double>(weight), expected.view());
  CHECK(support::largest_difference(d_x, expected) < 1e-12);
}

TEMPLATE_TEST_CASE("With k = r flylora is a LoRA of frozen A, whatever its bias, and merges exactly", "[method]",
                   Reference, Simd<>) {
  auto layer = random_layer({.rank = 6, .k = 6, .alpha = 12}, TestType{});
  const auto y = support::output(layer, tokens);
  Matrix<double> merged = weight, expected(40, 13);
  const Matrix<double> a = dense_a(layer);
  const auto& b = layer.experts().parameters().lora_B;
  for (Index o = 0; o < 13; ++o)
    for (Index i = 0; i < 11; ++i)
      for (Index j = 0; j < 6; ++j) merged(o, i) += 2 * b(j, o) * a(j, i);
  Reference{}.linear(View<const double>(tokens), LinearWeights<double>{.weight = merged, .bias = bias},
                     expected.view());
  CHECK(support::largest_difference(y, expected) < 1e-13);
  Matrix<double> by_layer = weight;
  CHECK(can_merge(layer));
  merge_into(layer, by_layer.view());
  CHECK(support::largest_difference(by_layer, merged) < 1e-14);
  for (Index e = 0; e < 6; ++e) layer.router().bias()[std::size_t(e)] = double(e * e) - 10;
  CHECK(support::largest_difference(support::output(layer, tokens), y) < 1e-13);

  const auto fewer = random_layer({.rank = 6, .k = 5}, TestType{});
  CHECK_FALSE(can_merge(fewer));
  CHECK(test::code_of([&] { merge_into(fewer, merged.view()); }) == ErrorCode::not_mergeable);
}

TEST_CASE("Training flylora changes B and no bit of A", "[method]") {
  auto layer = random_layer({.rank = 12, .k = 5}, Simd<>{});
  const Matrix<double> a = dense_a(layer), b = layer.experts().parameters().lora_B;
  auto work = layer.workspace(40);
  auto gradients = layer.gradients();
  AdamW<double> adamw;
  for (int step = 0; step < 5; ++step) {
    Matrix<double> y(40, 13);
    set_zero(gradients);
    layer.forward(tokens, y, work);
    layer.backward(tokens, y, {}, gradients, work);
    adamw.step(layer, gradients);
  }
  CHECK(support::same_bits(dense_a(layer), a));
  CHECK_FALSE(support::same_bits(layer.experts().parameters().lora_B, b));
}

TEMPLATE_TEST_CASE("flylora's bias says who is chosen, never what the chosen add", "[method]", Reference, Simd<>) {
  for (FlySelect select : {FlySelect::magnitude, FlySelect::signed_value}) {
    auto layer = random_layer({.rank = 12, .k = 5, .select = select}, TestType{});
    const auto without = chosen(layer);
    Rng rng(7);
    for (double& bias_of : layer.router().bias()) bias_of = 0.05 * (2 * unit_interval(rng()) - 1);
    const auto with = chosen(layer);
    CHECK(with != without);
    const Matrix<double> a = dense_a(layer), y = support::output(layer, tokens);
    const auto& b = layer.experts().parameters().lora_B;
    Matrix<double> expected(40, 13);
    Reference{}.linear(View<const double>(tokens), LinearWeights<double>{.weight = weight, .bias = bias},
                       expected.view());
    for (Index n = 0; n < 40; ++n)
      for (int j : with[std::size_t(n)]) {
        double z = 0;
        for (Index i = 0; i < 11; ++i) z += a(j, i) * tokens(n, i);
        for (Index o = 0; o < 13; ++o) expected(n, o) += 64.0 / 12 * z * b(j, o);
      }
    CHECK(support::largest_difference(y, expected) < 1e-13);
  }
}

TEST_CASE("Only selection by magnitude is blind to the sign of a rank", "[method]") {
  for (FlySelect select : {FlySelect::magnitude, FlySelect::signed_value}) {
    auto layer = random_layer({.rank = 12, .k = 5, .select = select}, Simd<>{});
    const auto before = support::output(layer, tokens);
    auto a = layer.experts().factors().projection();
    for (Index j = 1; j < 12; j += 2)
      for (double& value : a.values.view().row(j)) value = -value;
    layer.experts().factors().set_projection(a);
    for (Index j = 1; j < 12; j += 2)
      for (double& b : layer.experts().parameters().lora_B.view().row(j)) b = -b;
    const bool same = support::largest_difference(support::output(layer, tokens), before) < 1e-13;
    CHECK(same == (select == FlySelect::magnitude));
  }
}
