// SPDX-License-Identifier: MIT
// expect: !external
#include "parts.hpp"

int main() {
  mole::MixtureLinear layer{mole::External{}, mole::NoGating{}, parts::experts(), parts::base()};
  auto work = layer.workspace(4);
  mole::Matrix<float> x(4, 3), y(4, 2);
  layer.forward(x, y, work);
}
