// SPDX-License-Identifier: MIT
// TorchMixture: the mixture of mola() in libtorch's own operations, which differentiates it.
#pragma once

#include <torch/torch.h>

#include <string>
#include <tuple>

namespace mole::test {

/// y = x W^T + b + scale * sum over the k best experts of gate_e B_e^T (A_e x)
struct TorchMixture {
  torch::Tensor weight, bias, router, lora_a, lora_b;  // [O, I] [O] [E, I] [E R, I] [E R, O]
  std::int64_t k;
  double scale;

  std::int64_t experts() const { return router.size(0); }

  /// Probabilities [N, E], the chosen experts [N, k] and their gates [N, k].
  std::tuple<torch::Tensor, torch::Tensor, torch::Tensor> route(const torch::Tensor& x) const {
    const torch::Tensor probabilities = torch::softmax(torch::matmul(x, router.t()), 1);
    const auto [best, chosen] = probabilities.topk(k, 1);
    return {probabilities, chosen, best / best.sum(1, true)};
  }
  torch::Tensor operator()(const torch::Tensor& x) const {
    const auto [probabilities, chosen, best] = route(x);
    const torch::Tensor gates = torch::zeros_like(probabilities).scatter(1, chosen, best);
    torch::Tensor y = torch::matmul(x, weight.t()) + bias;
    const std::int64_t ranks = lora_a.size(0) / experts();
    for (std::int64_t e = 0; e < experts(); ++e) {
      const torch::Tensor down = torch::matmul(x, lora_a.narrow(0, e * ranks, ranks).t());
      y = y + scale * gates.narrow(1, e, 1) * torch::matmul(down, lora_b.narrow(0, e * ranks, ranks));
    }
    return y;
  }
  /// E * sum_e (share of all choices that e has) * (mean of its probability)
  torch::Tensor load_balance(const torch::Tensor& x) const {
    const auto [probabilities, chosen, gates] = route(x);
    const torch::Tensor share = torch::one_hot(chosen, experts()).to(x.scalar_type()).mean(torch::IntArrayRef{0, 1});
    return double(experts()) * (share * probabilities.mean(0)).sum();
  }
};

}  // namespace mole::test
