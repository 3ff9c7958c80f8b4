// SPDX-License-Identifier: MIT
// expect: deleted
#include "parts.hpp"

mole::Matrix<float> load_weight();

int main() {
  mole::Rng rng(1);
  mole::Matrix<float> weight(4, 4);
  auto layer = mole::dora({}, load_weight(), mole::DenseBase(weight), rng);
}
