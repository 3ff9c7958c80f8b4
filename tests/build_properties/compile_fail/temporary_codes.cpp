// SPDX-License-Identifier: MIT
// expect: deleted
#include "parts.hpp"

#include <mole/base/half_base.hpp>

mole::Matrix<std::uint16_t> load_codes();

int main() {
  mole::HalfBase base{mole::ReducedFloatWeight<mole::Half>(load_codes())};
}
