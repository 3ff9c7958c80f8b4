// SPDX-License-Identifier: MIT
// expect: Experts do not model ExpertPolicy (mole/expert/expert_policy.hpp)
#include "parts.hpp"

struct Idle {
  using Scalar = float;
  mole::Index experts() const { return 2; }
  mole::Index in() const { return 3; }
  mole::Index out() const { return 2; }
};

int main() {
  mole::MixtureLinear layer{parts::router(), parts::gate(), Idle{}, parts::base()};
}
