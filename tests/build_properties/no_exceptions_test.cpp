// SPDX-License-Identifier: MIT
// A program without exceptions and run-time type information trains a layer on threads; its handler gets the errors.
#include "mole/mole.hpp"

#include <cmath>
#include <cstdio>
#include <cstring>

namespace {

bool failed = false;

void expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "no_exceptions_test: expected %s\n", what);
  failed = true;
}

/// Ends the program: with 0 if the error is the one of the bad call below, and nothing failed before.
void handler(mole::ErrorCode code, const char* text) {
  expect(code == mole::ErrorCode::shape, "the code of a wrong shape");
  expect(std::strstr(text, "expected") != nullptr && std::strstr(text, "found") != nullptr, "a text with both sizes");
  std::_Exit(failed ? 1 : 0);
}

}  // namespace

int main() {
  mole::Rng rng(1);
  mole::Matrix<float> weight(16, 24), x(40, 24), y(40, 16), d_x(40, 24);
  fill_uniform(weight.view(), 1, rng);
  fill_uniform(x.view(), 1, rng);
  mole::AnyLinear<float> layer(
      mole::mola({.experts = 4, .rank = 3, .k = 2}, mole::DenseBase{weight}, rng, mole::Simd(mole::ThreadPool(3))), 40);
  mole::AdamW adamw({.learning_rate = 1e-2});
  double first = 0, last = 0;
  for (int step = 0; step < 20; ++step) {
    layer.zero_gradients();
    layer.forward(x, y);
    last = 0;
    for (float number : y.elements()) last += double(number) * double(number);
    if (step == 0) first = last;
    layer.backward(x, y, d_x);
    adamw.step(layer);
  }
  expect(std::isfinite(last) && last < first, "a loss that falls");

  mole::MergedWeight merged(weight.view());
  expect(!layer.can_merge(), "no merge of a routed layer");

  expect(mole::set_error_handler(&handler) != nullptr, "the first handler");
  layer.forward(x, d_x);  // of another width
  return 1;
}
