// SPDX-License-Identifier: MIT
// enforced_routing(): an expert for each kind of documents, and no choice.
#pragma once

#include "mole/method/mola.hpp"
#include "training/methods/sizes.hpp"

namespace encoder {

/// All tokens of a text go through the expert of its domain, with weight 1.
/// Source: Hallee et al. 2024, arXiv:2401.15713, with LoRA in the place of copies of the feed-forward blocks.
inline training::Method enforced_routing(const mole::ThreadPool& pool) {
  constexpr mole::Index rank = 8;
  return {
      .name = "enforced",
      .title = "Enforced routing, r" + std::to_string(rank) + " a domain",
      .learning_rate = 1e-2,
      .domain_experts = true,
      .build =
          [execution = training::Execution(pool)](const training::Site& site, mole::Rng& rng) {
            const mole::MolaOptions options{
                .experts = site.domains, .rank = rank, .k = 1, .alpha = training::scale * double(rank), .dropout = 0};
            return training::Method::Layer(mole::mola(options, site.base(), rng, execution), site.max_tokens);
          },
      .touched =
          [](const training::Site& site) { return training::Touched{.each = training::lora_parameters(site, rank)}; }};
}

}  // namespace encoder
