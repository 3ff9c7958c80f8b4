// SPDX-License-Identifier: MIT
// A host with an optimizer of its own: one flat array of parameters, one of gradients, and a layer that lives in them.
#include <mole/mole.hpp>

#include <cstdio>
#include <vector>

int main() {
  mole::Rng rng(1);
  mole::Matrix<float> weights(16, 16), x(32, 16), y(32, 16), goal(32, 16), d_y(32, 16);
  for (auto* matrix : {&weights, &x, &goal}) fill_uniform(matrix->view(), 1, rng);
  mole::AnyLinear<float> layer(mole::mola({.experts = 4, .rank = 4, .k = 2}, mole::DenseBase{weights}, rng), 32);

  const mole::ParameterLayout layout = parameter_layout(layer);
  std::vector<float> parameters(std::size_t(layout.size)), gradients(parameters.size());  // the host's
  bind_parameters(layer, parameters);
  bind_gradients(layer, gradients);
  for (const auto& tensor : layout.tensors)
    std::printf("%s [%td x %td] from %td\n", tensor.name.c_str(), tensor.rows, tensor.cols, tensor.first);

  for (int step = 0; step <= 200; ++step) {
    layer.zero_gradients();
    layer.forward(x, y);
    double loss = 0;
    for (std::size_t i = 0; i < y.elements().size(); ++i) {
      const float error = y.elements()[i] - goal.elements()[i];
      loss += double(error) * double(error) / double(y.size());
      d_y.elements()[i] = 2 * error / float(y.size());
    }
    layer.backward(x, d_y, {});
    for (std::size_t i = 0; i < parameters.size(); ++i) parameters[i] -= 2.f * gradients[i];  // the host's own step
    if (step % 100 == 0) std::printf("step %3d  loss %.4f\n", step, loss);
  }
}
