// SPDX-License-Identifier: MIT
// A trained layer becomes one of fixed sizes, which computes the same without heap and exceptions.
#include <mole/mole.hpp>

#include <array>
#include <cstdio>

int main() {
  mole::Rng rng(1);
  mole::Matrix<float> weights(16, 16), y_of_layer(1, 16);
  fill_uniform(weights.view(), 1, rng);
  auto layer = mole::mola({.experts = 4, .rank = 4, .k = 2}, mole::DenseBase{weights}, rng);
  fill_uniform(layer.experts().parameters().lora_B.view(), 1, rng);  // as if it had been trained
  std::array<float, 16> x{0.5f, -1, 0.25f}, y;

  using Fixed = mole::FixedLinear<float, 16, 16, 4, 4, 2>;  // In, Out, Rank, Experts, K
  const Fixed fixed = mole::freeze<Fixed>(layer);
  fixed.forward(x.data(), y.data());  // noexcept; 3 kB of numbers, to be copied anywhere

  auto work = layer.workspace(1);
  layer.forward(mole::View<const float>(x.data(), 1, 16), y_of_layer, work);
  std::printf("frozen: %.5f, the layer: %.5f, %zu bytes\n", double(y[0]), double(y_of_layer(0, 0)), sizeof(Fixed));
}
