// SPDX-License-Identifier: MIT
// expect: Router does not model RouterPolicy (mole/router/router_policy.hpp)
#include "parts.hpp"

struct Mute {
  using Scalar = float;
  mole::Index outputs() const { return 2; }
};

int main() {
  mole::MixtureLinear layer{Mute{}, parts::gate(), parts::experts(), parts::base()};
}
