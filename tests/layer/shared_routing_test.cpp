// SPDX-License-Identifier: MIT
// One decision for several layers: the maps of a block, or queries, keys and values.
#include "mole/core/activation.hpp"
#include "mole/mole.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;

namespace {

constexpr Index decided_tokens = 6, decided_in = 11, decided_hidden = 13, decided_out = 5;

auto decided_layer(Index in, Index out, std::uint64_t seed) {
  Rng rng(seed);
  LowRank<DenseFactors<double>> experts({.in = in, .out = out, .experts = 4, .rank = 3, .alpha = 6}, rng);
  fill_uniform(experts.parameters().lora_B.view(), 1, rng);
  return ExpertLinear(std::move(experts), DenseBase(support::random_matrix<double>(out, in, seed + 10)), Reference{});
}

/// down(silu(gate x) * up x), under the routing that gate makes.
template <class Gating>
struct DecidedBlock {
  using Gate = decltype(support::routed_layer<double>({}, std::declval<Gating>()));

  Gate gate;
  decltype(decided_layer(1, 1, 1)) up = decided_layer(decided_in, decided_hidden, 2),
                                   down = decided_layer(decided_hidden, decided_out, 3);
  typename Gate::Workspace gate_work = gate.workspace(decided_tokens);
  ExpertWorkspace<LowRank<DenseFactors<double>>, DenseBase<Matrix<double>>> up_work = up.workspace(decided_tokens),
                                                                            down_work = down.workspace(decided_tokens);
  Matrix<double> x = support::random_matrix<double>(decided_tokens, decided_in, 4);
  Matrix<double> g{decided_tokens, decided_hidden}, u = g, h = g, y{decided_tokens, decided_out};

  explicit DecidedBlock(Gating gating) : gate(support::routed_layer<double>({}, gating)) {}

  double loss(const Matrix<double>& d_y) {
    gate.forward(x, g, gate_work);
    up.apply(x, gate_work.routing, u, up_work);
    for (std::size_t i = 0; i < h.elements().size(); ++i)
      h.elements()[i] = SiLU{}.value(g.elements()[i]) * u.elements()[i];
    down.apply(h, gate_work.routing, y, down_work);
    double sum = 0;
    for (std::size_t i = 0; i < y.elements().size(); ++i) sum += y.elements()[i] * d_y.elements()[i];
    return sum;
  }
  /// The gradients of gate's router, and d_x.
  std::pair<Matrix<double>, Matrix<double>> backward(const Matrix<double>& d_y) {
    auto gate_gradients = gate.gradients();
    auto up_gradients = up.gradients(), down_gradients = down.gradients();
    Matrix<double> d_h(decided_tokens, decided_hidden), d_g = d_h, d_u = d_h, d_x(decided_tokens, decided_in);
    down.apply_backward(h, gate_work.routing, d_y, gate_work.d_gate(), d_h, down_gradients, down_work);
    for (std::size_t i = 0; i < h.elements().size(); ++i) {
      d_g.elements()[i] = d_h.elements()[i] * u.elements()[i] * SiLU{}.derivative(g.elements()[i]);
      d_u.elements()[i] = d_h.elements()[i] * SiLU{}.value(g.elements()[i]);
    }
    up.apply_backward(x, gate_work.routing, d_u, gate_work.d_gate(), d_x, up_gradients, up_work);
    gate.backward(x, d_g, d_x, gate_gradients, gate_work);
    return {gate_gradients.router.weight, d_x};
  }
};

}  // namespace

TEST_CASE("One decision serves gate, up and down, and learns from all three", "[layer]") {
  DecidedBlock block(Gate{Softmax{}, All{}, Raw{}});
  const auto d_y = support::random_matrix<double>(decided_tokens, decided_out, 5);
  block.loss(d_y);
  const auto gradients = block.backward(d_y);
  const auto check = [&](Matrix<double>& tensor, const Matrix<double>& found) {
    for (std::size_t i = 0; i < tensor.elements().size(); ++i) {
      const double kept = tensor.elements()[i], step = 1e-5;
      tensor.elements()[i] = kept + step;
      const double above = block.loss(d_y);
      tensor.elements()[i] = kept - step;
      const double below = block.loss(d_y);
      tensor.elements()[i] = kept;
      const double expected = (above - below) / (2 * step);
      CHECK(std::abs(found.elements()[i] - expected) < 1e-6 * (1 + std::abs(expected)));
    }
  };
  check(block.gate.router().parameters().weight, gradients.first);
  check(block.x, gradients.second);
}

TEST_CASE("A decision without gates, LLaVA-MoLE's, is the same for all maps, whatever scales the logits", "[layer]") {
  DecidedBlock block(Gate{Softmax{}, TopK{1}, Unit{}});
  const auto d_y = support::random_matrix<double>(decided_tokens, decided_out, 5);
  const double loss = block.loss(d_y);
  const auto gradients = block.backward(d_y);
  for (double d : gradients.first.elements()) CHECK(d == 0);
  for (double& weight : block.gate.router().parameters().weight.elements()) weight *= 3;
  CHECK(block.loss(d_y) == loss);
}
