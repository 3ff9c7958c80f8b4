// SPDX-License-Identifier: MIT
// expect: Executor does not model ExecutorPolicy (mole/execution/executor_policy.hpp)
#include "parts.hpp"

struct Nobody {
  int threads() const { return 1; }
};

int main() {
  mole::Simd execution{Nobody{}};
}
