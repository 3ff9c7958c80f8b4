// SPDX-License-Identifier: MIT
// MoePeftLayers: the modules of a mixture as layers, whatever their kind.
#pragma once

#include "mole/core/activation.hpp"
#include "mole/execution/default_execution.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/dense_factors.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/all.hpp"
#include "mole/gating/select/entropy_hybrid.hpp"
#include "mole/gating/select/expert_capacity.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/select/top_p.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/io/moe_peft/read_moe_peft.hpp"
#include "mole/layer/any_linear.hpp"
#include "mole/layer/feed_forward_experts.hpp"
#include "mole/layer/mixture_linear.hpp"
#include "mole/method/one_adapter.hpp"
#include "mole/base/no_base.hpp"
#include "mole/router/linear_router.hpp"

#include <concepts>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Makes layers whose types the caller need not name.
///
///     MoePeftLayers<float> layers(read_moe_peft(folder), 512);
///     AnyLinear<float> q = layers.layer("model.layers.0.self_attn.q_proj", DenseBase{q_weight});
///     AnyLinear<float> mlp = layers.block("model.layers.0.mlp", gate_base, up_base, down_base);  // MixLoRA
///
/// Numbers are copied and converted to T. Routers see x without dropout, as in the release. MixLoRA-Switch computes its
/// experts in evaluation, which the release skips; a token without place gets 0 from them, and x times its best score
/// from the host. Throws Error(option) for a module that is not there or of the other form, Error(shape) for a base
/// that does not fit.
template <std::floating_point T, class Execution = DefaultExecution>
class MoePeftLayers {
 public:
  /// `max_tokens` of one call.
  explicit MoePeftLayers(MoePeftAdapter adapter, Index max_tokens = 1, Execution execution = {})
      : adapter_(std::move(adapter)), max_tokens_(max_tokens), execution_(std::move(execution)) {}

  const MoePeftAdapter& adapter() const { return adapter_; }

  /// All experts of a module, or its one LoRA.
  LowRank<DenseFactors<T>> bank(std::string_view path) const {
    const MoePeftModule& module = adapter_.at(path);
    const bool single = module.single.has_value();
    const MoePeftLora& lora = single ? adapter_.config.lora : adapter_.config.experts;
    std::vector<MoePeftPair> pairs = module.experts;
    if (single) pairs.push_back(*module.single);
    require(!pairs.empty(), ErrorCode::option, adapter_.source, ": expected a module with LoRA, found '", path,
            "', a block with a router alone");
    const Index in = pairs.front().a->shape()[1], out = pairs.front().b->shape()[0], experts = Index(pairs.size());
    LoraParameters<T> all{Matrix<T>(experts * lora.rank, in), Matrix<T>(experts * lora.rank, out)};
    for (Index e = 0; e < experts; ++e) {
      copy(pairs[std::size_t(e)].a->matrix<T>(), all.lora_A.view().middle_rows(e * lora.rank, lora.rank));
      copy(pairs[std::size_t(e)].b->transposed<T>(), all.lora_B.view().middle_rows(e * lora.rank, lora.rank));
    }
    return {DenseFactors<T>(RankBlocks::uniform(experts, lora.rank), std::move(all)),
            std::vector<T>(std::size_t(experts), T(lora.scale())),
            {.rate = lora.dropout, .stream = 1}};
  }
  /// The router of a module, or of a block of MixLoRA.
  LinearRouter<T> router(std::string_view path) const {
    const MoePeftModule& module = adapter_.at(path);
    require(module.gate.has_value(), ErrorCode::option, adapter_.source, ": expected a module with a router, found '",
            path, "' without");
    return LinearRouter<T>({module.gate->matrix<T>(), {}});
  }

  /// A module with a router of its own, or with one LoRA.
  template <BasePolicy Base>
  AnyLinear<T> layer(std::string_view path, Base base) const {
    if (adapter_.at(path).single) return any(one_adapter(bank(path), std::move(base), execution_));
    require(adapter_.config.kind != MoePeftKind::mixlora, ErrorCode::option, adapter_.source,
            ": expected a module with a router of its own, found '", path, "', which block() makes a layer of");
    const MoePeftConfig& c = adapter_.config;
    const auto mixture = [&](auto gate) {
      return any(MixtureLinear{router(path), std::move(gate), bank(path), std::move(base), execution_});
    };
    if (c.kind == MoePeftKind::mola) return mixture(Gate{Softmax{}, TopK{.k = c.k}, Renormalized{}});
    if (c.kind == MoePeftKind::loramoe) return mixture(Gate{Softmax{}, All{}, Raw{}});
    return mixture(Gate{Softmax{},
                        EntropyHybrid{.confident = {.p = c.p, .crossing = false, .min_k = c.k},
                                      .threshold = c.entropy_index > 0 ? c.entropy_threshold : 1,
                                      .entropy = {.family = c.renyi ? EntropyFamily::renyi : EntropyFamily::tsallis,
                                                  .order = c.entropy_index > 0 ? c.entropy_index : 1,
                                                  .shift = c.entropy_shift,
                                                  .offset = 1e-10}},
                        Raw{}});
  }

  /// A feed-forward block of MixLoRA, as mixlora(): its maps W are bases; one that is no target has no experts. Also
  /// throws Error(option) if the configuration names another activation than the one that is given.
  template <BasePolicy Base, class Activation = SiLU>
  AnyLinear<T> block(const std::string& path, Base gate, Base up, Base down, Activation activation = {}) const {
    const MoePeftConfig& c = adapter_.config;
    require(c.kind == MoePeftKind::mixlora, ErrorCode::option, adapter_.source,
            ": expected MixLoRA, whose experts are blocks, found ", name_of(c.kind));
    require(c.activation.empty() || fits(activation, c.activation), ErrorCode::option, adapter_.source,
            ": expected the activation of its configuration, '", c.activation, "', found another");
    const auto made = [&](auto gating) {
      const Index in = gate.in(), out = down.out();
      auto gate_map = projection(path + ".gate_proj", std::move(gate));
      auto up_map = projection(path + ".up_proj", std::move(up));
      auto down_map = projection(path + ".down_proj", std::move(down));
      return any(MixtureLinear{
          router(path), std::move(gating),
          FeedForwardExperts{std::move(gate_map), std::move(up_map), std::move(down_map), std::move(activation)},
          NoBase<T>(in, out), execution_});
    };
    switch (c.routing) {
      case MoePeftRouting::top_k:
        return made(Gate{Softmax{}, TopK{.k = c.k}, Renormalized{}});
      case MoePeftRouting::dynamic:
        return made(Gate{Softmax{.divisor = c.temperature > 0 ? c.temperature : 1}, TopP{.p = c.p}, Raw{}});
      case MoePeftRouting::switched:
        break;
    }
    return made(
        Gate{Softmax{}, ExpertCapacity{TopK{1}, CapacityOptions{.fixed = c.capacity, .per_sequence = true}}, Raw{}});
  }

 private:
  /// Is that the activation which transformers knows under this name? A user's own is not looked at.
  template <class Activation>
  static bool fits([[maybe_unused]] const Activation& activation, [[maybe_unused]] std::string_view name) {
    if constexpr (std::same_as<Activation, SiLU>)
      return name == "silu" || name == "swish";
    else if constexpr (std::same_as<Activation, ReLU>)
      return name == "relu";
    else if constexpr (std::same_as<Activation, GELU>)
      return activation.approximate ? name == "gelu_new" || name == "gelu_pytorch_tanh" : name == "gelu";
    else
      return true;
  }
  template <class Layer>
  AnyLinear<T> any(Layer layer) const {
    return AnyLinear<T>(std::move(layer), max_tokens_);
  }
  template <class Base>
  auto projection(const std::string& path, Base base) const {
    if (adapter_.modules.contains(path)) return ExpertProjection{bank(path), std::move(base)};
    const Index experts = adapter_.config.num_experts;
    DenseFactors<T> none(RankBlocks::uniform(experts, 0), {Matrix<T>(0, base.in()), Matrix<T>(0, base.out())});
    return ExpertProjection{LowRank<DenseFactors<T>>(std::move(none), std::vector<T>(std::size_t(experts))),
                            std::move(base)};
  }

  MoePeftAdapter adapter_;
  Index max_tokens_;
  [[no_unique_address]] Execution execution_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
