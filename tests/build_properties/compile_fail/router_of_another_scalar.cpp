// SPDX-License-Identifier: MIT
// expect: Experts and Router have different Scalars
#include "parts.hpp"

int main() {
  mole::LinearRouter<double> router({.in = 3, .experts = 2}, parts::rng);
  mole::MixtureLinear layer{router, parts::gate(), parts::experts(), parts::base()};
}
