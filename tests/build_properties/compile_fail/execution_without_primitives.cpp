// SPDX-License-Identifier: MIT
// expect: Execution does not model ExecutionPolicy (mole/execution/execution_policy.hpp)
#include "parts.hpp"

struct Lazy {};

int main() {
  mole::MixtureLinear layer{parts::router(), parts::gate(), parts::experts(), parts::base(), Lazy{}};
}
