// SPDX-License-Identifier: MIT
#include "mole/combiner/set_attention.hpp"

#include "combiner/combiner_checks.hpp"

using namespace mole;
using namespace combiner_checks;

namespace {

SetAttention<double> set_attention(Index experts = 3, Index layers = 2) {
  Rng rng(1);
  SetAttention<double> attention({.experts = experts, .features = 6, .layers = layers, .heads = 2}, rng);
  auto& first = attention.parameters().layers[0];
  for (auto* norm : {&first.norm1, &first.norm2}) fill_uniform(norm->bias.view(), 0.3, rng);
  return attention;
}

}  // namespace

TEST_CASE("SetAttention has exact gradients, with experts ruled out, too", "[combiner]") {
  CHECK(worst_gradient(set_attention(), {}) < 1e-7);
  CHECK(worst_gradient(set_attention(), {.allowed = some_allowed}) < 1e-7);
  CHECK(worst_gradient(set_attention(1, 1), {}) < 1e-7);
}

TEST_CASE("SetAttention does not see the order of the experts, and its gradient follows it", "[combiner]") {
  const auto attention = set_attention();
  const auto x = support::random_matrix<double>(4, 18, 2), d_y = support::random_matrix<double>(4, 6, 3);
  auto turned = x;
  for (Index n = 0; n < 4; ++n)
    for (Index i = 0; i < 18; ++i) turned(n, (i + 6) % 18) = x(n, i);
  CHECK(support::largest_difference(combined(attention, x), combined(attention, turned)) < 1e-14);
  const CombinerGradients<SetAttention<double>> one(attention, x, d_y, {}), other(attention, turned, d_y, {});
  for (Index n = 0; n < 4; ++n)
    for (Index i = 0; i < 18; ++i) CHECK(std::abs(one.x(n, i) - other.x(n, (i + 6) % 18)) < 1e-13);
}

TEST_CASE("An expert that SetAttention is not allowed to see is removed, and not zeroed", "[combiner]") {
  const auto attention = set_attention();
  CHECK(excluded_reaches_nothing(attention));
  const auto x = support::random_matrix<double>(4, 18, 2);
  const std::vector<std::uint8_t> without_last{1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 0};
  Matrix<double> two(4, 12), zeroed = x;
  for (Index n = 0; n < 4; ++n) {
    std::ranges::copy(x.view().row(n).first(12), two.view().row(n).begin());
    std::ranges::fill(zeroed.view().row(n).subspan(12), 0.0);
  }
  auto of_two = set_attention(2);
  of_two.parameters() = attention.parameters();
  const auto removed = combined(attention, x, {.allowed = without_last});
  CHECK(support::same_bits(removed, combined(of_two, two)));
  CHECK(support::largest_difference(removed, combined(attention, zeroed)) > 1e-3);
}

TEST_CASE("An input whose experts are all ruled out gets 0 from SetAttention", "[combiner]") {
  const auto x = support::random_matrix<double>(2, 18, 2);
  const std::vector<std::uint8_t> none_of_first{0, 0, 0, 1, 1, 1};
  const auto y = combined(set_attention(), x, {.allowed = none_of_first});
  for (double value : y.view().row(0)) CHECK(value == 0);
  CHECK(combined(set_attention(), Matrix<double>(0, 18)).rows() == 0);
}

TEST_CASE("Without attention and feed-forward, SetAttention is the mean over experts", "[combiner]") {
  auto attention = set_attention();
  for (auto& layer : attention.parameters().layers)
    for (auto* map : {&layer.out, &layer.ff1}) map->weight.set_zero(), map->bias.set_zero();
  const auto x = support::random_matrix<double>(4, 18, 2), d_y = support::random_matrix<double>(4, 6, 3);
  const auto y = combined(attention, x);
  const CombinerGradients<SetAttention<double>> found(attention, x, d_y, {});
  for (Index n = 0; n < 4; ++n)
    for (Index i = 0; i < 6; ++i) {
      CHECK(std::abs(y(n, i) - (x(n, i) + x(n, 6 + i) + x(n, 12 + i)) / 3) < 1e-14);
      for (Index e = 0; e < 3; ++e) CHECK(std::abs(found.x(n, e * 6 + i) - d_y(n, i) / 3) < 1e-14);
    }
  const auto of_allowed = combined(attention, x, {.allowed = some_allowed});
  for (Index i = 0; i < 6; ++i) CHECK(std::abs(of_allowed(0, i) - (x(0, i) + x(0, 6 + i)) / 2) < 1e-14);
}

TEST_CASE("SetAttention refuses heads that do not divide the features", "[combiner]") {
  Rng rng;
  CHECK_THROWS_AS(SetAttention<float>({.experts = 2, .features = 6, .heads = 4}, rng), Error);
  CHECK_THROWS_AS(SetAttention<float>({.experts = 2, .features = 6, .layers = 9, .heads = 2}, rng), Error);
}

TEST_CASE("SetAttention refuses calls that do not fit, and a backward without a forward", "[combiner]") {
  refuses_calls_that_do_not_fit(set_attention());
}

TEST_CASE("An optimizer steps every tensor of SetAttention", "[combiner]") {
  CHECK(a_step_moves_all(set_attention()));
}
