// SPDX-License-Identifier: MIT
// run(): included by both units, so that its bodies are compiled twice, with different flags.
#pragma once

#include "mole/mole.hpp"

#include "unit.hpp"

namespace two_units {

/// Arch is a template parameter, so that each unit has its own run().
template <class Arch>
Result run() {
  using namespace mole;
  Rng rng(3);
  Matrix<float> weight(37, 45);
  fill_uniform(weight.view(), 0.2, rng);
  MixtureLinear layer{LinearRouter<float>({.in = 45, .experts = 4}, rng), Gate{Softmax{}, TopK{.k = 2}, Renormalized{}},
                      LowRank<DenseFactors<float>>({.in = 45, .out = 37, .experts = 4, .rank = 5, .alpha = 10}, rng),
                      DenseBase{weight.view()}, Simd<Arch>{}};
  fill_uniform(layer.experts().parameters().lora_B.view(), 0.3, rng);
  Matrix<float> x(70, 45), y(70, 37), d_y(70, 37), d_x(70, 45);
  fill_uniform(x.view(), 1, rng);
  fill_uniform(d_y.view(), 1, rng);
  auto work = layer.workspace(70);
  auto gradients = layer.gradients();
  layer.forward(x, y, work);
  layer.backward(x, d_y, d_x, gradients, work);

  Result result{Arch::name(), {}};
  const auto append = [&](std::span<const float> numbers) {
    result.numbers.insert(result.numbers.end(), numbers.begin(), numbers.end());
  };
  append(y.elements());
  append(d_x.elements());
  decltype(gradients)::for_each_tensor([&](std::string_view, auto& gradient) { append(gradient.elements()); },
                                       gradients);
  return result;
}

}  // namespace two_units
