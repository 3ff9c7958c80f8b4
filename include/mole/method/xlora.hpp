// SPDX-License-Identifier: MIT
// xlora(): X-LoRA, a classifier of hidden states that mixes trained adapters, other ones for each token and layer.
#pragma once

#include "mole/gating/gate.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/layer/model_routing.hpp"
#include "mole/router/deep_router.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Buehler and Buehler 2024 (X-LoRA), arXiv:2402.07148; released as EricLBuehler/xlora and in huggingface/peft,
/// tuners/xlora.
///
/// What the preset leaves out are other gates of a ModelRouting: logits as gates (enable_softmax = False),
/// Gate{Identity{}, ...}; and a softmax of the k best alone (enable_softmax_topk), Gate{..., SoftmaxOverChosen{}}. That
/// of EricLBuehler/xlora is one softmax over all tokens and layers, a defect that peft has mended and that is not
/// offered here.
struct XloraOptions {
  Index hidden = 0;  ///< width of the hidden states
  Index layers = 1;  ///< that have adapters; 1 if all share one decision (layerwise_scalings = False)
  Index experts = 0;
  Index depth = 1;  ///< linear maps of the classifier
  Index width = 2048;
  double dropout = 0.2;  ///< between them
  double temperature = 1;
  Index k = 0;  ///< adapters per token, whose gates are not renormalized; 0: all
  double global_scaling_weight = 1;
};

/// gates of layer m = global_scaling_weight softmax_e(c_me(h) / temperature), c the classifier.
///
/// The layers are ExpertLinear of the adapters, frozen or not, each with its scale. Two passes through the model: the
/// first with the base alone, a routing without pairs, gives h, without a gradient; then route(h), and the second pass
/// applies routing m in layer m. Cached keys and values of the first pass are of no use in the second.
template <class T, class Generator, class Execution = DefaultExecution>
auto xlora(const XloraOptions& options, Generator& generator, Execution execution = {}) {
  require(options.depth >= 1 && options.depth <= 8, ErrorCode::option, "xlora: expected a depth from 1 to 8, found ",
          options.depth);
  const Index outputs = checked_product("xlora: outputs of the classifier", options.layers, options.experts);
  DeepRouter<T> classifier({.in = options.hidden,
                            .experts = outputs,
                            .widths = std::vector<Index>(std::size_t(options.depth - 1), options.width),
                            .dropout = {.rate = options.dropout, .stream = 4000}},
                           generator);
  return ModelRouting{std::move(classifier),
                      Gate{Softmax{.temperature = options.temperature},
                           TopK{.k = options.k == 0 ? options.experts : options.k}, Raw{options.global_scaling_weight}},
                      ModelRoutingOptions{.layers = options.layers, .experts = options.experts}, std::move(execution)};
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
