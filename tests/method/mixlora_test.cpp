// SPDX-License-Identifier: MIT
#include "mole/method/mixlora.hpp"

#include "core/error_code.hpp"
#include "method/method_checks.hpp"
#include "mole/mole.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

namespace {

constexpr Index mixlora_in = 11, mixlora_hidden = 17;
const auto mixlora_gate = support::random_matrix<double>(mixlora_hidden, mixlora_in, 3),
           mixlora_up = support::random_matrix<double>(mixlora_hidden, mixlora_in, 4),
           mixlora_down = support::random_matrix<double>(mixlora_in, mixlora_hidden, 5);

auto mixlora_of(const MixLoraOptions& options) {
  Rng rng(1);
  return mixlora(options, DenseBase{mixlora_gate}, DenseBase{mixlora_up}, DenseBase{mixlora_down}, rng);
}

/// down(act(gate x) * (up x)), of the frozen block alone.
template <class Activation>
Matrix<double> frozen_block(const Activation& activation) {
  Matrix<double> y(tokens.rows(), mixlora_in);
  for (Index n = 0; n < tokens.rows(); ++n)
    for (Index h = 0; h < mixlora_hidden; ++h) {
      double g = 0, u = 0;
      for (Index i = 0; i < mixlora_in; ++i)
        g += mixlora_gate(h, i) * tokens(n, i), u += mixlora_up(h, i) * tokens(n, i);
      for (Index o = 0; o < mixlora_in; ++o) y(n, o) += mixlora_down(o, h) * activation.value(g) * u;
    }
  return y;
}

}  // namespace

TEST_CASE("A fresh MixLoRA is the frozen block", "[method]") {
  CHECK(support::largest_difference(support::output(mixlora_of({}), tokens), frozen_block(SiLU{})) < 1e-12);
  Rng rng(1);
  const auto gelu = mixlora<GELU>({}, DenseBase{mixlora_gate}, DenseBase{mixlora_up}, DenseBase{mixlora_down}, rng);
  CHECK(support::largest_difference(support::output(gelu, tokens), frozen_block(GELU{})) < 1e-12);
}

TEST_CASE("MixLoRA's defaults are 2 of 8 experts of rank 8 at scale 2 on each map", "[method]") {
  const auto layer = mixlora_of({});
  CHECK(layer.gating().select.k == 2);
  for (const auto* map : {&layer.experts().gate(), &layer.experts().up(), &layer.experts().down()}) {
    CHECK(map->experts.experts() == 8);
    CHECK(map->experts.blocks().size(0) == 8);
    CHECK(map->experts.scale()[0] == 2);
  }
  double square = 0;
  for (double number : layer.router().parameters().weight.elements()) square += number * number;
  const double deviation = std::sqrt(square / double(layer.router().parameters().weight.size()));
  CHECK((deviation > 0.014 && deviation < 0.026));
  CHECK(test::code_of([] { mixlora_of({.router_deviation = -1}); }) == ErrorCode::option);
}

TEST_CASE("MixLoRA has exact gradients under its gates: k best, top-p, one with a capacity", "[method]") {
  const MixLoraOptions options{.experts = 4, .rank = 2, .dropout = 0.2};
  auto best = mixlora_of(options);
  CHECK(check_gradients(best, {.pass = {.training = true}}).passed(1e-7));
  Rng rng(1);
  const auto check = [&](auto gating) {
    auto layer = mixlora(options, gating, DenseBase{mixlora_gate}, DenseBase{mixlora_up}, DenseBase{mixlora_down}, rng,
                         Reference{});
    return check_gradients(layer).passed(1e-7);
  };
  CHECK(check(Gate{Softmax{}, TopP{.p = 0.6}, Raw{}}));
  CHECK(check(Gate{Softmax{}, ExpertCapacity{TopK{1}, {.fixed = 2}}, Raw{}}));
}

TEST_CASE("With one expert, MixLoRA is a block of three LoRA layers", "[method]") {
  auto layer = mixlora_of({.experts = 1, .k = 1, .rank = 3, .dropout = 0});
  Rng rng(7);
  for (auto* map : {&layer.experts().gate(), &layer.experts().up(), &layer.experts().down()})
    fill_uniform(map->experts.parameters().lora_B.view(), 1, rng);
  const auto alone = [&](const auto& map, const Matrix<double>& x) {
    const ExpertLinear linear(map.experts, map.base);
    Matrix<double> y(x.rows(), linear.out());
    auto work = linear.workspace(x.rows());
    const std::vector<int> first(std::size_t(x.rows()), 0);
    linear.apply(x, Routing<double>::from_labels(first, 1), y, work);
    return y;
  };
  auto h = alone(layer.experts().gate(), tokens);
  const auto u = alone(layer.experts().up(), tokens);
  for (std::size_t i = 0; i < h.elements().size(); ++i)
    h.elements()[i] = SiLU{}.value(h.elements()[i]) * u.elements()[i];
  CHECK(support::largest_difference(support::output(layer, tokens), alone(layer.experts().down(), h)) < 1e-11);
}
