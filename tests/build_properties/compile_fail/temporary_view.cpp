// SPDX-License-Identifier: MIT
// expect: deleted
#include "parts.hpp"

int main() {
  mole::DenseBase base(mole::Matrix<float>(4, 3).view());
}
