// SPDX-License-Identifier: MIT
// Rank-wise experts meet what is chosen, and nothing else: a NaN in any other row of B is never seen.
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <limits>

using namespace mole;

namespace {

constexpr Index in = 40, out = 230, ranks = 24, k = 5;  // more than a panel, more than a group of panels
constexpr float nan = std::numeric_limits<float>::quiet_NaN();
const Matrix<float> weight = support::random_matrix<float>(out, in, 1);

template <class Execution>
auto fly(Execution execution) {
  Rng rng(2);
  return support::with_random_b(flylora({.rank = ranks, .k = k}, PackedBase<float>(weight.view()), rng, execution));
}
template <class Execution>
auto sm(Execution execution) {
  Rng rng(2);
  return support::with_random_b(smora({.rank = ranks, .k = k}, DenseBase{weight.view()}, rng, execution));
}
template <class Execution>
auto moram_of(Execution execution) {
  Rng rng(2);
  return support::with_random_b(
      moram({.ranks = {ranks}, .k = k, .temperature = 1}, PackedBase<float>(weight.view()), rng, execution));
}

/// What makes an expert wanted by every token.
template <class Layer>
std::span<float> bias_of(Layer& layer) {
  if constexpr (requires { layer.router().bias(); })
    return layer.router().bias();
  else
    return layer.gating().score.bias;
}

/// Spoils row `rank` of B, and of A where no router reads it.
template <class Layer>
void spoil(Layer& layer, Index rank) {
  auto&& parameters = layer.experts().parameters();
  for (float& number : parameters.lora_B.view().row(rank)) number = nan;
  if constexpr (!requires { layer.router().bias(); })
    for (float& number : parameters.lora_A.view().row(rank)) number = nan;
}

bool finite(View<const float> numbers) {
  for (Index r = 0; r < numbers.rows(); ++r)
    if (!support::all_finite(numbers.row(r))) return false;
  return true;
}

template <class Layer>
void check_tokens(Layer layer, Index tokens) {
  const Index spoilt = 3;
  spoil(layer, spoilt);
  const auto x = support::random_matrix<float>(tokens, in, 8);
  Matrix<float> y(tokens, out);
  auto work = layer.workspace(tokens);
  layer.forward(x, y, work);
  bool as_chosen = true;
  for (Index n = 0; n < tokens; ++n) {
    const auto chosen = work.routing.experts_of(n);
    const bool meets = std::find(chosen.begin(), chosen.end(), int(spoilt)) != chosen.end();
    const auto row = std::as_const(y).view().row(n);
    as_chosen &= meets ? std::none_of(row.begin(), row.end(), [](float v) { return std::isfinite(v); })
                       : support::all_finite(row);
  }
  CHECK(as_chosen);
}

/// Only even ranks are chosen; odd ones are spoilt, and their gradient holds a number that has to stay.
template <class Layer>
void check_batch(Layer layer, Index tokens) {
  constexpr float untouched = 7.25f;
  for (Index rank = 0; rank < ranks; ++rank)
    if (rank % 2 == 0)
      bias_of(layer)[std::size_t(rank)] = 50;
    else
      spoil(layer, rank);
  const auto x = support::random_matrix<float>(tokens, in, 8), d_y = support::random_matrix<float>(tokens, out, 9);
  Matrix<float> y(tokens, out), d_x(tokens, in);
  auto work = layer.workspace(tokens);
  auto gradients = layer.gradients();
  for (Index rank = 1; rank < ranks; rank += 2)
    for (float& number : gradients.experts.lora_B.view().row(rank)) number = untouched;
  layer.forward(x, y, work);
  layer.backward(x, d_y, d_x, gradients, work);
  CHECK(finite(y));
  CHECK(finite(d_x));
  decltype(gradients)::for_each_tensor([](std::string_view, auto& gradient) { CHECK(finite(gradient.view())); },
                                       gradients);
  bool as_before = true, learned = false;
  for (Index rank = 0; rank < ranks; ++rank)
    for (float number : gradients.experts.lora_B.view().row(rank))
      if (rank % 2 == 1)
        as_before &= number == untouched;
      else
        learned |= number != 0;
  CHECK(as_before);
  CHECK(learned);
}

}  // namespace

TEMPLATE_TEST_CASE("Rank-wise experts touch the chosen rows of B and no other, however many tokens", "[expert]",
                   Reference, Simd<>) {
  for (Index tokens : {1, 7, 31, 32, 64, 192, 193, 300}) {
    CAPTURE(tokens);
    check_tokens(fly(TestType{}), tokens);
    check_tokens(sm(TestType{}), tokens);
    check_tokens(moram_of(TestType{}), tokens);
    check_batch(fly(TestType{}), tokens);
    check_batch(sm(TestType{}), tokens);
    check_batch(moram_of(TestType{}), tokens);
  }
}
