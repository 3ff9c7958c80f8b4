// SPDX-License-Identifier: MIT
// A layer composed of policies and a preset, in a project of its own.
#include <mole/loss/load_balance.hpp>
#include <mole/method/mola.hpp>
#include <mole/mole.hpp>
#include <mole/optim/adamw.hpp>

#include <cmath>
#include <cstdio>

int main() {
  mole::Rng rng(1);
  mole::Matrix<float> weights(768, 768), x(16, 768), y(16, 768), d_y(16, 768), d_x(16, 768);
  for (auto* matrix : {&weights, &x, &d_y}) mole::fill_uniform(matrix->view(), 0.1, rng);
  mole::View<const float> weights_of_the_host = weights;

  mole::MixtureLinear layer{
      mole::LinearRouter<float>{{.in = 768, .experts = 8}, rng},
      mole::Gate{mole::Softmax{}, mole::TopK{.k = 2}, mole::Renormalized{}},
      mole::LowRank<mole::DenseFactors<float>>{{.in = 768, .out = 768, .experts = 8, .rank = 16, .alpha = 32}, rng},
      mole::DenseBase{weights_of_the_host}};

  auto work = layer.workspace(/*max_tokens=*/512);
  auto gradients = layer.gradients();
  mole::AdamW<float> adamw;
  layer.forward(x, y, work);
  const double aux = mole::load_balance(work, {.coefficient = 0.01});
  layer.backward(x, d_y, d_x, gradients, work);
  adamw.step(layer, gradients);

  auto same = mole::mola({.experts = 8, .rank = 16, .k = 2}, mole::DenseBase{weights_of_the_host}, rng);
  auto same_work = same.workspace(16);
  mole::Matrix<float> same_y(16, 768);
  same.forward(x, same_y, same_work);

  // B starts at zero, so both layers still give their base's output, bit for bit.
  const bool equal = std::equal(y.elements().begin(), y.elements().end(), same_y.elements().begin());
  std::printf("mole %d.%d.%d: aux %.4f, %s\n", MOLE_VERSION_MAJOR, MOLE_VERSION_MINOR, MOLE_VERSION_PATCH, aux,
              equal ? "equal" : "different");
  return equal && aux > 0.009 && std::isfinite(d_x(0, 0)) ? 0 : 1;
}
