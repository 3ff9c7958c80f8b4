// SPDX-License-Identifier: MIT
// expect: forward
#include "parts.hpp"

int main() {
  mole::ExpertLinear layer{parts::experts(), parts::base()};
  auto work = layer.workspace(4);
  mole::Matrix<float> x(4, 3), y(4, 2);
  layer.forward(x, y, work);
}
