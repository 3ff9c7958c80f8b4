// SPDX-License-Identifier: MIT
// xlora_routing(), xlora_bank(): the classifier and the adapters of X-LoRA as parts of layers.
#pragma once

#include "mole/core/random.hpp"
#include "mole/execution/default_execution.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/identity.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/gating/weigh/softmax_over_chosen.hpp"
#include "mole/io/peft/peft_bank.hpp"
#include "mole/io/xlora/read_xlora.hpp"
#include "mole/layer/model_routing.hpp"
#include "mole/router/deep_router.hpp"

#include <concepts>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The classifier; one without biases has none. It draws its dropout as that of xlora().
template <std::floating_point T>
DeepRouter<T> xlora_classifier(const XloraAdapter& adapter) {
  const auto& maps = adapter.classifier;
  DeepRouterOptions options{
      .in = 1,
      .experts = 1,
      .widths = std::vector<Index>(maps.size() - 1, 1),
      .activation = adapter.config.activations ? RouterActivation::relu : RouterActivation::none,
      .dropout = {.rate = adapter.config.activations ? adapter.config.dropout : 0, .stream = 4000}};
  Rng rng;  // draws what is overwritten
  DeepRouter<T> router(options, rng);
  for (std::size_t l = 0; l < maps.size(); ++l)
    router.parameters().layers[l] = {maps[l].weight.template matrix<T>(),
                                     maps[l].bias ? maps[l].bias->template matrix<T>() : Matrix<T>()};
  router.check_sizes();
  return router;
}

/// What enable_softmax and enable_softmax_topk choose between; of the third and fourth, the gates are a softmax of the
/// chosen scalings.
template <class T, class Execution = DefaultExecution>
using XloraRouting = std::variant<ModelRouting<DeepRouter<T>, Gate<Softmax, TopK, Raw>, Execution>,
                                  ModelRouting<DeepRouter<T>, Gate<Identity, TopK, Raw>, Execution>,
                                  ModelRouting<DeepRouter<T>, Gate<Softmax, TopK, SoftmaxOverChosen>, Execution>,
                                  ModelRouting<DeepRouter<T>, Gate<Identity, TopK, SoftmaxOverChosen>, Execution>>;

/// Routings for all layers from the last hidden states of a first pass, for std::visit; see xlora(). Layer m of
/// adapter.layers is the m-th module with adapters in the order of the host's modules, which the files do not tell;
/// without layerwise_scalings there is one routing for all. global_scaling_weight is in the scales of xlora_bank().
template <std::floating_point T, class Execution = DefaultExecution>
XloraRouting<T, Execution> xlora_routing(const XloraAdapter& adapter, Execution execution = {}) {
  const XloraConfig& config = adapter.config;
  const Index experts = Index(adapter.adapters.size());
  const TopK best{.k = config.k == 0 ? experts : config.k};
  const auto made = [&](auto gate) {
    return XloraRouting<T, Execution>(ModelRouting{xlora_classifier<T>(adapter), std::move(gate),
                                                   ModelRoutingOptions{.layers = adapter.layers, .experts = experts},
                                                   std::move(execution)});
  };
  const Softmax softmax{.temperature = config.temperature};
  if (config.softmax_topk)
    return config.softmax ? made(Gate{softmax, best, SoftmaxOverChosen{}})
                          : made(Gate{Identity{}, best, SoftmaxOverChosen{}});
  return config.softmax ? made(Gate{softmax, best, Raw{}}) : made(Gate{Identity{}, best, Raw{}});
}

/// The adapters at `path` as one bank, as peft_bank(): the experts of an ExpertLinear that applies a routing. Their
/// scales include global_scaling_weight; frozen adapters have no dropout.
template <std::floating_point T>
LowRank<DenseFactors<T>> xlora_bank(const XloraAdapter& adapter, std::string_view path) {
  LowRank<DenseFactors<T>> bank = peft_bank<T>(adapter.adapters, path);
  std::vector<T> scale(bank.scale().begin(), bank.scale().end());
  for (T& number : scale) number *= T(adapter.config.global_scaling_weight);
  const Dropout dropout = adapter.config.trainable_adapters ? bank.dropout() : Dropout{};
  return {std::move(bank.factors()), std::move(scale), dropout};
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
