// SPDX-License-Identifier: MIT
// expect: deleted
#include "parts.hpp"

#include <vector>

int main() {
  mole::Matrix<float> weight(4, 3);
  mole::DenseBase base(weight, std::vector<float>(4));
}
