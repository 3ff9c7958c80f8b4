// SPDX-License-Identifier: MIT
// A model of libtorch, whose Linear layers become mixtures: trained by torch's Adam, saved and loaded as before.
#include <mole/interop/torch.hpp>
#include <mole/mole.hpp>

#include <torch/torch.h>

#include <cstdio>
#include <sstream>
#include <string>
#include <vector>

int main() {
  torch::manual_seed(1);
  const auto new_model = [] {
    torch::nn::Sequential model(torch::nn::Linear(32, 64), torch::nn::GELU(), torch::nn::Linear(64, 8));
    for (torch::Tensor& parameter : model->parameters()) parameter.set_requires_grad(false);
    for (const char* name : {"0", "2"})
      mole::replace_linear(*model, name, [&](auto weight, auto bias) {
        mole::Rng rng(name[0] == '0' ? 1 : 2);
        return mole::mola({.experts = 8, .rank = 4, .k = 2}, mole::DenseBase{weight, bias}, rng);
      });
    return model;
  };
  torch::nn::Sequential model = new_model();
  std::vector<torch::Tensor> trained;
  for (const auto& parameter : model->named_parameters())
    if (parameter.value().requires_grad()) {
      std::printf("%s [%td x %td]\n", parameter.key().c_str(), parameter->size(0), parameter->size(1));
      trained.push_back(parameter.value());
    }

  auto& first = *model[0]->as<mole::TorchLinear<float>>();
  first.set_auxiliary_loss([](auto& trace) { return load_balance(trace, {.coefficient = 0.01}); });

  const torch::Tensor x = torch::randn({64, 32}), goal = torch::sin(x.narrow(1, 0, 8) * 2);
  torch::optim::Adam adam(trained, torch::optim::AdamOptions(5e-3));
  for (int step = 0; step <= 100; ++step) {
    adam.zero_grad();
    const torch::Tensor y = model->forward(x);
    const torch::Tensor loss = torch::mse_loss(y, goal);
    (loss + first.auxiliary_loss()).backward();
    adam.step();
    if (step % 50 == 0) std::printf("step %3d  loss %.4f\n", step, loss.item<double>());
  }

  std::stringstream file;
  torch::save(model, file);
  torch::nn::Sequential loaded = new_model();
  torch::load(loaded, file);
  model->eval(), loaded->eval();
  const torch::NoGradGuard no_grad;
  const bool equal = torch::equal(model->forward(x), loaded->forward(x));
  std::printf("loaded: %s\n", equal ? "the same output" : "ANOTHER OUTPUT");
  return equal ? 0 : 1;
}
