// SPDX-License-Identifier: MIT
// expect: whose scales are of blocks: a block runs along the outputs
#include "parts.hpp"

int main() {
  mole::Matrix<std::int8_t> codes(32, 2);
  mole::Int8BlockBase base(mole::Int8BlockWeight(mole::Transposed{codes}, std::vector<float>(2)));
}
