// SPDX-License-Identifier: MIT
// A frozen mixture for a microcontroller: .ci/cross compiles it, and looks at what it needs.
#include "mole/fixed/fixed_linear.hpp"

using Layer = mole::FixedLinear<float, 16, 16, 4, 4, 2>;

extern "C" void run(const Layer* layer, const float* x, float* y) {
  layer->forward(x, y);
}
