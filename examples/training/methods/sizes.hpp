// SPDX-License-Identifier: MIT
// The sizes that all methods share, so that their rows can be compared.
#pragma once

#include "mole/execution/simd.hpp"
#include "mole/execution/thread_pool.hpp"
#include "training/method.hpp"

#include <vector>

namespace training {

/// One execution for all methods: each is compiled once.
using Execution = mole::Simd<mole::kernel::DefaultArchitecture, mole::ThreadPool>;

/// The mixture that the others are measured by: 8 experts of 4 ranks, 2 of them a token. Every method has about its
/// number of trainable parameters, as far as its own structure allows.
constexpr mole::Index experts = 8, chosen = 2, expert_rank = 4;
constexpr double scale = 2;  // alpha / rank of every adapter whose paper has a choice

/// Parameters of a pair of A and B.
inline mole::Index lora_parameters(const Site& site, mole::Index rank) {
  return rank * (site.in() + site.out());
}
/// Parameters of a linear router without a bias.
inline mole::Index router_parameters(const Site& site, mole::Index outputs = experts) {
  return outputs * site.in();
}

/// Ranks of the plain LoRAs that have as many parameters over a whole model as the mixture. Without sites: as many as
/// it has ranks.
struct EqualRanks {
  mole::Index active, trainable;
};
EqualRanks equal_ranks(const std::vector<Site>& sites);

}  // namespace training
