// SPDX-License-Identifier: MIT
// flags: -Ofast -fno-fast-math
// What the error about fast math tells a host to do.
#include "parts.hpp"

int main() {}
