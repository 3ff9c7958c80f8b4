// SPDX-License-Identifier: MIT
#include "mole/method/mixtral.hpp"

#include "core/error_code.hpp"
#include "method/method_checks.hpp"
#include "mole/mole.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

namespace {

constexpr MixtralOptions small_mixtral{.in = 11, .hidden = 7, .experts = 4};

/// W2_e (silu(W1_e x) o W3_e x), of one token.
template <class Experts>
std::vector<double> whole_block(const Experts& experts, Index e, std::span<const double> x) {
  const auto &w1 = experts.gate().experts.parameters().weight, &w3 = experts.up().experts.parameters().weight,
             &w2 = experts.down().experts.parameters().weight;
  std::vector<double> y(x.size());
  for (Index h = 0; h < 7; ++h) {
    double g = 0, u = 0;
    for (Index i = 0; i < 11; ++i) g += w1(e * 7 + h, i) * x[std::size_t(i)], u += w3(e * 7 + h, i) * x[std::size_t(i)];
    for (Index o = 0; o < 11; ++o) y[std::size_t(o)] += w2(e * 11 + o, h) * g / (1 + std::exp(-g)) * u;
  }
  return y;
}

/// The largest difference of the layer's output from the weighted sum of whole blocks.
template <class Layer>
double difference_from_blocks(const Layer& layer) {
  auto work = layer.workspace(tokens.rows());
  Matrix<double> y(tokens.rows(), 11), expected(tokens.rows(), 11);
  layer.forward(tokens, y, work);
  for (Index p = 0; p < work.routing.pairs(); ++p) {
    const Index n = work.routing.token(p);
    const auto block = whole_block(layer.experts(), work.routing.expert(p), tokens.view().row(n));
    for (Index o = 0; o < 11; ++o) expected(n, o) += work.routing.gate(p) * block[std::size_t(o)];
  }
  return support::largest_difference(y, expected);
}

}  // namespace

TEST_CASE("Mixtral, OLMoE and DeepSeekMoE weigh whole blocks", "[method]") {
  Rng rng(1);
  CHECK(difference_from_blocks(mixtral<double>(small_mixtral, rng)) < 1e-13);
  CHECK(difference_from_blocks(mixtral<double>(small_mixtral, Gate{Softmax{}, TopK{2}, Raw{}}, rng)) < 1e-13);
  const auto shared = mixtral<double>(small_mixtral, Gate{Softmax{}, TopK{2}, Raw{}, 1}, rng);
  CHECK(difference_from_blocks(shared) < 1e-13);
  auto work = shared.workspace(tokens.rows());
  shared.route(tokens, work);
  CHECK(work.routing.load(3) == tokens.rows());
}

TEST_CASE("Mixtral has exact gradients", "[method]") {
  Rng rng(1);
  auto layer = mixtral<double>(small_mixtral, rng);
  CHECK(check_gradients(layer).passed(1e-7));
  auto dense = mixtral<double, ReLU>(small_mixtral, Gate{Sigmoid{}, All{}, Raw{}}, rng, Reference{});
  CHECK(check_gradients(dense).passed(1e-7));
}

TEST_CASE("Blocks copied from one dense block are that block, whoever serves: sparse upcycling", "[method]") {
  Rng rng(1);
  auto layer = mixtral<double>(small_mixtral, rng);
  for (auto* map : {&layer.experts().gate(), &layer.experts().up(), &layer.experts().down()}) {
    auto& matrices = map->experts.parameters().weight;
    const Index size = matrices.rows() / 4;
    for (Index e = 1; e < 4; ++e)
      copy(std::as_const(matrices).view().top(size), matrices.view().middle_rows(e * size, size));
  }
  const std::vector<int> first(std::size_t(tokens.rows()), 0), last(std::size_t(tokens.rows()), 3);
  const auto one = support::output(layer, tokens, {.forced = first});
  CHECK(support::same_bits(one, support::output(layer, tokens, {.forced = last})));
  CHECK(support::largest_difference(one, support::output(layer, tokens)) < 1e-14);
}

TEST_CASE("An expert of Mixtral with no token gets a gradient of exactly zero, whatever it holds", "[method]") {
  Rng rng(1);
  auto layer = mixtral<double>(small_mixtral, rng);
  for (double& number : layer.experts().gate().experts.parameters().weight.view().middle_rows(7, 7).row(0))
    number = std::numeric_limits<double>::quiet_NaN();
  const std::vector<int> first(std::size_t(tokens.rows()), 0);
  auto work = layer.workspace(tokens.rows());
  auto gradients = layer.gradients();
  Matrix<double> y(tokens.rows(), 11), d_x = y;
  layer.forward(tokens, y, work, {.forced = first});
  layer.backward(tokens, Matrix<double>(tokens), d_x, gradients, work);
  for (Index h = 7; h < 28; ++h)
    for (double d : gradients.experts.gate.experts.weight.view().row(h)) CHECK(d == 0);
  CHECK(std::ranges::all_of(d_x.elements(), [](double d) { return std::isfinite(d); }));
}

TEST_CASE("Mixtral refuses blocks without a width", "[method]") {
  Rng rng(1);
  CHECK(test::code_of([&] { mixtral<double>({.in = 11}, rng); }) == ErrorCode::option);
}
