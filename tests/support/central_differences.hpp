// SPDX-License-Identifier: MIT
// gradient_error(): the check of a gradient by central differences, under the name that tests use.
#pragma once

#include "mole/testing/central_differences.hpp"

namespace mole::test {

using laws::gradient_error;
using laws::gradient_tolerance;

}  // namespace mole::test
