// SPDX-License-Identifier: MIT
// peft_bank(): a module of several adapters as the experts of one layer.
#pragma once

#include "mole/io/peft/peft_experts.hpp"

#include <algorithm>
#include <concepts>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Expert e is the LoRA or rsLoRA of adapter e at `path`, of its own rank and with its own scale. An adapter without
/// that module is an expert of no ranks, which adds nothing. Dropout is theirs if all agree, else none.
///
/// A layer is made of them as of any others, with a router from labels, from arrow_prototypes(), or trained.
/// Throws Error(option) for no adapter, another kind, a bias on B or a magnitude, and if none has the module;
/// Error(shape) for other inputs or outputs.  Copies.
template <std::floating_point T>
LowRank<DenseFactors<T>> peft_bank(const std::vector<PeftAdapter>& adapters, std::string_view path) {
  std::vector<LowRank<DenseFactors<T>>> found;
  std::vector<int> ranks;
  std::vector<T> scale;
  bool same_dropout = true;
  const auto experts_of = [](const PeftAdapter& adapter) {  // borrows it
    return PeftExperts<T>(std::shared_ptr<const PeftAdapter>(std::shared_ptr<const void>(), &adapter));
  };
  for (const PeftAdapter& adapter : adapters) {
    same_dropout = same_dropout && adapter.config.dropout == adapters.front().config.dropout;
    if (adapter.has(path)) found.push_back(experts_of(adapter).lora(path));
    ranks.push_back(adapter.has(path) ? int(found.back().blocks().size(0)) : 0);
    scale.push_back(adapter.has(path) ? found.back().scale()[0] : T(0));
  }
  require(!found.empty(), ErrorCode::option, "peft_bank: expected an adapter with a module '", path, "' among ",
          adapters.size(), ", found none");
  DenseFactors<T> all = found.front().factors();
  for (std::size_t i = 1; i < found.size(); ++i) all.append(found[i].factors());
  return LowRank<DenseFactors<T>>(DenseFactors<T>(RankBlocks::ragged(ranks), std::move(all.parameters())),
                                  std::move(scale), same_dropout ? experts_of(adapters.front()).dropout() : Dropout{});
}

/// All paths of the adapters, in order, each once.
inline std::vector<std::string> peft_paths(const std::vector<PeftAdapter>& adapters) {
  std::vector<std::string> paths;
  for (const PeftAdapter& adapter : adapters)
    for (const PeftModule& module : adapter.modules) paths.push_back(module.path);
  std::ranges::sort(paths);
  paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
  return paths;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
