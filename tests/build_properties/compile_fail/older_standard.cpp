// SPDX-License-Identifier: MIT
// flags: -std=c++17
// expect: mole needs C++20
#include "mole/mole.hpp"

int main() {}
