// SPDX-License-Identifier: MIT
// flags: -ffast-math
// expect: add -fno-fast-math
#include "parts.hpp"

int main() {}
