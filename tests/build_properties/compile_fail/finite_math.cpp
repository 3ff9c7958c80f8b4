// SPDX-License-Identifier: MIT
// flags: -ffinite-math-only
// expect: add -fno-fast-math
#include "parts.hpp"

int main() {}
