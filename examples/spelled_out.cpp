// SPDX-License-Identifier: MIT
// A layer spelled out, one policy per role, over weights that stay the host's; and the same by its method's name.
#include <mole/mole.hpp>

#include <Eigen/Core>

#include <cstdio>

using Host = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

int main() {
  const Host weights_of_the_host = Host::Random(768, 768), x = Host::Random(512, 768), d_y = Host::Random(512, 768);
  Host y(512, 768), d_x = Host::Zero(512, 768);
  mole::Rng rng(1);

  mole::MixtureLinear layer{
      mole::LinearRouter<float>{{.in = 768, .experts = 8}, rng},
      mole::Gate{mole::Softmax{}, mole::TopK{.k = 2}, mole::Renormalized{}},
      mole::LowRank<mole::DenseFactors<float>>{{.in = 768, .out = 768, .experts = 8, .rank = 16, .alpha = 32}, rng},
      mole::DenseBase{weights_of_the_host}};  // a view: nothing is copied

  auto work = layer.workspace(/*max_tokens=*/512);
  auto gradients = layer.gradients();
  mole::AdamW adamw({.learning_rate = 1e-3});
  layer.forward(x, y, work);
  const double auxiliary = mole::load_balance(work, {.coefficient = 0.01});
  layer.backward(x, d_y, d_x, gradients, work);
  adamw.step(layer, gradients);

  auto same = mole::mola({.experts = 8, .rank = 16, .k = 2}, mole::DenseBase{weights_of_the_host}, rng);
  std::printf("balance loss %.4f, %td and %td experts\n", auxiliary, layer.experts().experts(),
              same.experts().experts());
}
