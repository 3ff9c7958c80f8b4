// SPDX-License-Identifier: MIT
// flags: -fno-exceptions
// expect: compile without -fno-exceptions
#include "parts.hpp"

int main() {}
