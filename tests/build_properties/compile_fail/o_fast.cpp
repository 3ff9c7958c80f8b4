// SPDX-License-Identifier: MIT
// flags: -Ofast
// expect: add -fno-fast-math
#include "parts.hpp"

int main() {}
