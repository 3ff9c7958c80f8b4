// SPDX-License-Identifier: MIT
#include "support/compiled_kernels.hpp"

MOLE_TEST_KERNELS(, float)
MOLE_TEST_KERNELS(, double)
MOLE_TEST_EIGEN(, float)
MOLE_TEST_EIGEN(, double)
