// SPDX-License-Identifier: MIT
#include "adapt/method.hpp"

#include "mole/method/lora.hpp"
#include "mole/method/loramoe.hpp"
#include "mole/method/mola.hpp"

#include <cmath>

namespace adapt {
namespace {

using mole::Index;
using Execution = mole::Simd<mole::kernel::DefaultArchitecture, mole::ThreadPool>;

constexpr Index experts = 8, chosen = 2, expert_rank = 4;
constexpr double scale = 2;  // alpha / rank of every adapter

Index lora_parameters(LinearSize size, Index rank) {
  return rank * (size.in + size.out);
}
Index router_parameters(LinearSize size) {
  return experts * size.in;
}

/// The rank at which a plain LoRA has as many parameters as `count` says, over all layers of a block.
template <class Count>
Index rank_for(const std::vector<LinearSize>& sizes, Count count) {
  double wanted = 0, per_rank = 0;
  for (const LinearSize& size : sizes) {
    wanted += double(count(size));
    per_rank += double(lora_parameters(size, 1));
  }
  return Index(std::lround(wanted / per_rank));
}

Method plain(std::string name, std::string what, Index rank, double learning_rate, Execution execution) {
  return {.name = std::move(name),
          .title = "LoRA r" + std::to_string(rank) + what,
          .learning_rate = learning_rate,
          .balance = 0,
          .routed = false,
          .build =
              [rank, execution](mole::View<const float> weight, Index max_tokens, mole::Rng& rng) {
                const mole::LoraOptions options{
                    .in = weight.cols(), .out = weight.rows(), .rank = rank, .alpha = scale * double(rank)};
                return mole::AnyLinear<float>(mole::lora<float>(options, weight, rng, {}, execution), max_tokens);
              },
          .active = [rank](LinearSize size) { return lora_parameters(size, rank); }};
}

Method top_k(double learning_rate, Execution execution) {
  return {
      .name = "mola",
      .title = "top-2 of 8 x r4",
      .learning_rate = learning_rate,
      .balance = 1e-2,
      .routed = true,
      .build =
          [execution](mole::View<const float> weight, Index max_tokens, mole::Rng& rng) {
            const mole::MolaOptions options{.in = weight.cols(),
                                            .out = weight.rows(),
                                            .experts = experts,
                                            .rank = expert_rank,
                                            .k = chosen,
                                            .alpha = scale * double(expert_rank),
                                            .dropout = 0};
            return mole::AnyLinear<float>(mole::mola<float>(options, weight, rng, {}, execution), max_tokens);
          },
      .active = [](LinearSize size) { return router_parameters(size) + lora_parameters(size, chosen * expert_rank); }};
}

Method dense(double learning_rate, Execution execution) {
  return {
      .name = "dense",
      .title = "all 8 x r4, mixed",
      .learning_rate = learning_rate,
      .balance = 0,
      .routed = true,
      .build =
          [execution](mole::View<const float> weight, Index max_tokens, mole::Rng& rng) {
            const mole::LoramoeOptions options{.in = weight.cols(),
                                               .out = weight.rows(),
                                               .experts = experts,
                                               .rank = expert_rank,
                                               .alpha = scale * double(expert_rank),
                                               .dropout = 0};
            return mole::AnyLinear<float>(mole::loramoe<float>(options, weight, rng, {}, execution), max_tokens);
          },
      .active = [](LinearSize size) { return router_parameters(size) + lora_parameters(size, experts * expert_rank); }};
}

}  // namespace

std::vector<Method> all_methods(const std::vector<LinearSize>& sizes, const mole::ThreadPool& pool) {
  const Execution execution(pool);
  const Method mixture = top_k(7e-3, execution);
  const Index equal_active = rank_for(sizes, mixture.active);
  const Index equal_trainable = rank_for(
      sizes, [](LinearSize size) { return router_parameters(size) + lora_parameters(size, experts * expert_rank); });
  return {plain("lora", ", equal active", equal_active, 1e-2, execution), mixture,
          plain("lora-wide", ", equal trainable", equal_trainable, 7e-3, execution), dense(1e-2, execution)};
}

std::vector<std::string> default_methods() {
  return {"lora", "mola", "lora-wide"};
}

}  // namespace adapt
