// SPDX-License-Identifier: MIT
// expect: Gating does not model GatingPolicy (mole/gating/gating_policy.hpp)
#include "parts.hpp"

struct Undecided {
  void check(mole::Index) const {}
  mole::Index max_pairs(mole::Index tokens, mole::Index) const { return tokens; }
  mole::Index columns(mole::Index experts) const { return experts; }
};

int main() {
  mole::MixtureLinear layer{parts::router(), Undecided{}, parts::experts(), parts::base()};
}
