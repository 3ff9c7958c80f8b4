// SPDX-License-Identifier: MIT
// Two losses of the library, and one of the user's own: the mean of the largest score, to be kept small.
#include <mole/mole.hpp>

#include <algorithm>
#include <cstdio>

/// coefficient * mean over tokens of the largest score. Adds its gradient to d_scores.
template <class T>
double confidence(mole::Trace<T>& trace, double coefficient) {
  mole::Index tokens = 0;
  for (mole::Index n = 0; n < trace.tokens(); ++n) tokens += trace.pass.counts(n);
  double value = 0;
  for (mole::Index n = 0; n < trace.tokens(); ++n) {
    if (!trace.pass.counts(n)) continue;  // padding
    const auto scores = trace.scores().row(n).first(std::size_t(trace.scored_experts()));
    const auto best = std::max_element(scores.begin(), scores.end());
    value += coefficient * double(*best) / double(tokens);
    trace.d_scores()(n, best - scores.begin()) += T(coefficient / double(tokens));
  }
  return value;
}

int main() {
  mole::Rng rng(1);
  mole::Matrix<float> weights(6, 5), x(9, 5), y(9, 6), d_y(9, 6);
  for (auto* matrix : {&weights, &x, &d_y}) fill_uniform(matrix->view(), 1, rng);
  auto layer = mole::mola({.experts = 4, .k = 2}, mole::DenseBase{weights}, rng);
  auto work = layer.workspace(9);
  auto gradients = layer.gradients();

  layer.forward(x, y, work, {.training = true});
  const double balance = mole::load_balance(work, {.coefficient = 0.01});
  const double z = mole::router_z(work, {.coefficient = 1e-3});
  const double own = confidence(work, 0.1);
  layer.backward(x, d_y, {}, gradients, work);  // the gradients of all three reach the router
  std::printf("balance %.4f, z %.5f, confidence %.4f\n", balance, z, own);
}
