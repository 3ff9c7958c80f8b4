// SPDX-License-Identifier: MIT
// A user's own router in a layer of mole.
#include <mole/mole.hpp>

#include <cmath>
#include <cstdio>

/// Prefers the expert whose turn it is along a wave of the token's first feature: no parameters, no training.
struct WaveRouter {
  using Scalar = float;
  mole::Index experts = 4;

  mole::Index outputs() const { return experts; }

  void forward(mole::View<const float> x, mole::View<float> logits) const {
    for (mole::Index n = 0; n < x.rows(); ++n)
      for (mole::Index e = 0; e < experts; ++e) logits(n, e) = std::cos(x(n, 0) - float(e));
  }
};
static_assert(mole::RouterPolicy<WaveRouter>);

int main() {
  mole::Rng rng(1);
  const mole::Matrix<float> weights(6, 5);
  mole::Matrix<float> x(3, 5), y(3, 6);
  for (mole::Index n = 0; n < 3; ++n) x(n, 0) = float(n);

  const mole::MixtureLinear layer{
      WaveRouter{.experts = 4}, mole::Gate{mole::Softmax{}, mole::TopK{.k = 1}, mole::Renormalized{}},
      mole::LowRank<mole::DenseFactors<float>>{{.in = 5, .out = 6, .experts = 4, .rank = 2}, rng},
      mole::DenseBase{weights.view()}};
  auto work = layer.workspace(3);
  layer.forward(x, y, work);
  for (mole::Index n = 0; n < 3; ++n) std::printf("token %td -> expert %d\n", n, work.routing.experts_of(n)[0]);
}
