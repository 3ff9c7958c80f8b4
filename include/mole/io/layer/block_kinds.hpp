// SPDX-License-Identifier: MIT
// BlockKind, block_kinds(): feed-forward blocks of experts that a program can make from a file.
#pragma once

#include "mole/base/no_base.hpp"
#include "mole/core/activation.hpp"
#include "mole/gating/select/expert_capacity.hpp"
#include "mole/io/layer/layer_kinds.hpp"
#include "mole/layer/feed_forward_experts.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

template <>
struct PolicyDescription<SiLU> : detail::PlainDescription<SiLU> {
  static constexpr const char* name = "SiLU";
};
template <>
struct PolicyDescription<ReLU> : detail::PlainDescription<ReLU> {
  static constexpr const char* name = "ReLU";
};
template <>
struct PolicyDescription<GELU> {
  static constexpr const char* name = "GELU";
  static void write(const GELU& activation, LayerFieldsWriter& to) { to.set("approximate", activation.approximate); }
  static GELU read(const LayerFieldsReader& from) { return {.approximate = from.flag("approximate")}; }
};

namespace detail {
inline constexpr std::array<const char*, 5> capacity_priorities{"position", "token", "probability", "batch", "random"};
inline constexpr std::array<const char*, 3> capacity_roundings{"up", "down", "of_each_choice"};

/// The number of the text under `name` among `names`.
inline std::size_t choice_of(const LayerFieldsReader& from, const char* name, std::span<const char* const> names) {
  const std::string text = from.text(name);
  const auto found = std::ranges::find(names, std::string_view(text));
  if (found == names.end()) throw from.error("one of " + std::to_string(names.size()) + " words", name, text);
  return std::size_t(found - names.begin());
}
}  // namespace detail

template <class Select>
struct PolicyDescription<ExpertCapacity<Select>> {
  static constexpr const char* name = "ExpertCapacity";
  static void write(const ExpertCapacity<Select>& capacity, LayerFieldsWriter& to) {
    const CapacityOptions& options = capacity.options;
    to.set("select", detail::described(capacity.select));
    to.set("factor", options.factor);
    to.set("min", options.min);
    to.set("multiple", options.multiple);
    to.set("fixed", options.fixed);
    to.set("priority", detail::capacity_priorities[std::size_t(options.priority)]);
    to.set("rounding", detail::capacity_roundings[std::size_t(options.rounding)]);
    to.set("per_sequence", options.per_sequence);
  }
  static ExpertCapacity<Select> read(const LayerFieldsReader& from) {
    return ExpertCapacity<Select>(
        detail::policy_of<Select>(from, "select"),
        {.factor = from.number("factor"),
         .min = from.integer("min"),
         .multiple = from.integer("multiple"),
         .fixed = from.integer("fixed"),
         .priority = CapacityPriority(detail::choice_of(from, "priority", detail::capacity_priorities)),
         .rounding = CapacityRounding(detail::choice_of(from, "rounding", detail::capacity_roundings)),
         .per_sequence = from.flag("per_sequence")});
  }
};

namespace detail {
/// The maps of a block by their names in a description.
template <class F>
void for_each_block_map(F&& f, const auto& gate, const auto& up, const auto& down) {
  f("gate", gate);
  f("up", up);
  f("down", down);
}

/// As check_base(), for each of the maps.
void check_blocks_bases(const LayerFieldsReader& fields, const auto& gate, const auto& up, const auto& down,
                        bool other_base) {
  for_each_block_map(
      [&](const char* map, const auto& base) {
        check_base(fields.part(map, base.in(), base.out()), base_fingerprint(base), other_base);
      },
      gate, up, down);
}
}  // namespace detail

/// A gated feed-forward block with experts on each of its three maps, as mixlora(): of the maps W themselves, which are
/// the host's, a file has fingerprints. A description has "activation" beside router and gating, and of each map
/// "gate": {"base": ..., "experts": {...}}.
template <DescribedPolicy Router, DescribedPolicy Gating, DescribedPolicy Experts, DescribedPolicy Activation>
struct BlockKind {
  template <class Base, class Execution>
  using Layer = MixtureLinear<Router, Gating, FeedForwardExperts<Experts, Base, Activation>,
                              NoBase<typename Experts::Scalar>, Execution>;

  std::string method;

  static void describe(const auto& layer, LayerFieldsWriter& to) {
    to.set("router", detail::described(layer.router()));
    to.set("gating", detail::described(layer.gating()));
    const auto& block = layer.experts();
    to.set("activation", detail::described(block.activation()));
    detail::for_each_block_map(
        [&](const char* name, const auto& map) {
          LayerFieldsWriter part;
          part.set("base", detail::fingerprint_text(base_fingerprint(map.base)));
          part.set("experts", detail::described(map.experts));
          to.set(name, part);
        },
        block.gate(), block.up(), block.down());
  }
  template <class Base, class Execution>
  static Layer<Base, Execution> make(const LayerFieldsReader& from, Base gate, Base up, Base down,
                                     Execution execution) {
    const auto map = [&](const char* name, Base base) {
      const LayerFieldsReader fields = from.part(name, base.in(), base.out());
      fields.text("base");  // is checked already
      auto experts = detail::policy_of<Experts>(fields, "experts");
      fields.end();
      return ExpertProjection{std::move(experts), std::move(base)};
    };
    auto of_gate = map("gate", std::move(gate)), of_up = map("up", std::move(up)),
         of_down = map("down", std::move(down));
    return {detail::policy_of<Router>(from, "router"), detail::policy_of<Gating>(from, "gating"),
            FeedForwardExperts{std::move(of_gate), std::move(of_up), std::move(of_down),
                               detail::policy_of<Activation>(from, "activation")},
            NoBase<typename Experts::Scalar>(from.in(), from.out()), std::move(execution)};
  }
};

/// mixlora, of the k best experts, mixlora_dynamic, of a sum of scores, and mixlora_switch, of the best expert while it
/// has places, with SiLU between the maps. Others:
///
///     block_kinds<float>().with_kind(BlockKind<LinearRouter<float>, MyGate, LowRank<DenseFactors<float>>,
///     GELU>{"mine"})
template <class T>
auto block_kinds() {
  using Lora = LowRank<DenseFactors<T>>;
  return LayerKinds<>({})
      .with_kind(BlockKind<LinearRouter<T>, Gate<Softmax, TopK, Renormalized>, Lora, SiLU>{"mixlora"})
      .with_kind(BlockKind<LinearRouter<T>, Gate<Softmax, TopP, Raw>, Lora, SiLU>{"mixlora_dynamic"})
      .with_kind(BlockKind<LinearRouter<T>, Gate<Softmax, ExpertCapacity<TopK>, Raw>, Lora, SiLU>{"mixlora_switch"});
}

/// The kinds of whole feed-forward blocks that a layer file may hold.
template <class T>
using BlockKinds = decltype(block_kinds<T>());

namespace detail {
template <DescribedPolicy Router, DescribedPolicy Gating, DescribedPolicy Experts, class Base, class Activation,
          class T, class Execution>
struct KindOf<MixtureLinear<Router, Gating, FeedForwardExperts<Experts, Base, Activation>, NoBase<T>, Execution>> {
  using type = BlockKind<Router, Gating, Experts, Activation>;
};

template <class Kind>
inline constexpr bool is_block = false;
template <class Router, class Gating, class Experts, class Activation>
inline constexpr bool is_block<BlockKind<Router, Gating, Experts, Activation>> = true;

/// The registry that a layer is looked for in.
template <class Layer>
requires requires {
  typename KindOf<Layer>::type;
}
auto kinds_of() {
  if constexpr (is_block<typename KindOf<Layer>::type>)
    return block_kinds<typename Layer::Scalar>();
  else
    return preset_kinds<typename Layer::Scalar>();
}
}  // namespace detail

}  // namespace mole

#include "mole/core/macros_on.hpp"
