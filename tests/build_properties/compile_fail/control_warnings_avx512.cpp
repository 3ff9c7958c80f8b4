// SPDX-License-Identifier: MIT
// flags: -Wall -Wextra -Werror -O2 -mavx512f -mavx512bw -mavx512dq -mavx512cd -mavx512vl -mfma
// g++ 12 warns of its own AVX-512 headers.
#include "parts.hpp"

int main() {
  mole::MixtureLinear layer{parts::router(), parts::gate(), parts::experts(), parts::base()};
  auto work = layer.workspace(4);
  auto gradients = layer.gradients();
  mole::Matrix<float> x(4, 3), y(4, 2), d_x(4, 3);
  layer.forward(x, y, work);
  layer.backward(x, y, d_x, gradients, work);
}
