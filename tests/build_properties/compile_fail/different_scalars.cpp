// SPDX-License-Identifier: MIT
// expect: Experts and Base have different Scalars
#include "parts.hpp"

int main() {
  mole::Matrix<double> weight(2, 3);
  mole::MixtureLinear layer{parts::router(), parts::gate(), parts::experts(), mole::DenseBase{weight.view()}};
}
