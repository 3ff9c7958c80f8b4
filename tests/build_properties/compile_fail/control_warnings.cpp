// SPDX-License-Identifier: MIT
// flags: -Wall -Wextra -Werror -O2 -march=native
// A consumer's warnings, also those that need optimization.
#include "calls.hpp"

int main() {
  call_a_layer();
}
