// SPDX-License-Identifier: MIT
// grid(): the sizes at which a kernel's loops begin and end.
#pragma once

#include "mole/kernel/vector.hpp"
#include "support/guarded_matrix.hpp"
#include "support/seed.hpp"
#include "support/tolerance.hpp"

#include <vector>

namespace mole::test {

/// The widest instruction set of this file's flags: the build compiles it for several; or the one that it names.
#if defined(MOLE_TEST_ARCHITECTURE)
using Arch = MOLE_TEST_ARCHITECTURE;
#else
using Arch = kernel::DefaultArchitecture;
#endif

/// Nothing, one element, one less and one more than a vector, whole vectors and a tail, and beyond the widest loop.
template <class T>
std::vector<Index> grid() {
  constexpr Index step = kernel::step_of<Arch, T>;
  return {0, 1, step - 1, step, step + 1, 3 * step + 2, 8 * step + 3};
}

}  // namespace mole::test
