// SPDX-License-Identifier: MIT
// expect: Base does not model BasePolicy (mole/base/base_policy.hpp)
#include "parts.hpp"

struct Absent {
  using Scalar = float;
  mole::Index in() const { return 3; }
  mole::Index out() const { return 2; }
};

int main() {
  mole::MixtureLinear layer{parts::router(), parts::gate(), parts::experts(), Absent{}};
}
