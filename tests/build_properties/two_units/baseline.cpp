// SPDX-License-Identifier: MIT
#include "run.hpp"

two_units::Result two_units::run_baseline() {
  return run<mole::kernel::DefaultArchitecture>();
}
