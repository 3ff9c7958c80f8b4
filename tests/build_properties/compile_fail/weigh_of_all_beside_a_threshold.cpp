// SPDX-License-Identifier: MIT
// expect: Weigh reads the scores of all experts, and Score has columns behind them, which it would count
#include "parts.hpp"

int main() {
  const mole::Gate gate{mole::SoftmaxWithThreshold{}, mole::TopK{.k = 2}, mole::RenormalizedOverBest{.k = 2}};
  mole::MixtureLinear layer{parts::router(), gate, parts::experts(), parts::base()};
  auto work = layer.workspace(4);
  mole::Matrix<float> x(4, 3), y(4, 2);
  layer.forward(x, y, work);
}
