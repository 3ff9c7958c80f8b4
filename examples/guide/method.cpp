// SPDX-License-Identifier: MIT
// Any method on any base, behind one type.
#include <mole/mole.hpp>

#include <cstdio>
#include <string>
#include <vector>

int main() {
  mole::Rng rng(1);
  mole::Matrix<float> weights(16, 16), x(8, 16), y(8, 16);
  for (auto* matrix : {&weights, &x}) fill_uniform(matrix->view(), 1, rng);
  const std::vector<float> bias(16, 0.5f);

  std::vector<std::pair<std::string, mole::AnyLinear<float>>> layers;
  layers.emplace_back("LoRA", mole::AnyLinear<float>(mole::lora({.rank = 4}, mole::DenseBase{weights, bias}, rng), 8));
  layers.emplace_back(
      "FlyLoRA", mole::AnyLinear<float>(mole::flylora({.rank = 16, .k = 4}, mole::PackedBase{weights, bias}, rng), 8));
  layers.emplace_back("MoLA, int8", mole::AnyLinear<float>(
                                        mole::mola({.experts = 4}, mole::Int8RowBase{weights.view(), bias}, rng), 8));
  for (auto& [name, layer] : layers) {
    layer.forward(x, y);
    std::printf("%-12s y(0, 0) = %.4f\n", name.c_str(), y(0, 0));
  }
}
