// SPDX-License-Identifier: MIT
// flags: -fno-exceptions
// expect: mole/io reports errors by exceptions
#include "mole/io/checkpoint.hpp"

int main() {}
