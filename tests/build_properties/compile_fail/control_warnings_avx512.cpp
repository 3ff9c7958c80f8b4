// SPDX-License-Identifier: MIT
// flags: -Wall -Wextra -Werror -O2 -mavx512f -mavx512bw -mavx512dq -mavx512cd -mavx512vl -mfma
// g++ 12 warns of its own AVX-512 headers.
#include "calls.hpp"

int main() {
  call_a_layer();
}
