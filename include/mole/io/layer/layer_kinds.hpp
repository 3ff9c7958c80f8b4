// SPDX-License-Identifier: MIT
// LayerKinds: the compositions that a program can make from a file, by the names of their methods.
#pragma once

#include "mole/io/layer/base_fingerprint.hpp"
#include "mole/io/layer/preset_descriptions.hpp"
#include "mole/layer/expert_linear.hpp"
#include "mole/layer/mixture_linear.hpp"

#include <concepts>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A router, a gating and experts, on a base that the reader of a file brings.
template <DescribedPolicy Router, DescribedPolicy Gating, DescribedPolicy Experts>
struct LayerKind {
  template <class Base, class Execution>
  using Layer = MixtureLinear<Router, Gating, Experts, Base, Execution>;

  std::string method;

  template <class Base, class Execution>
  static void describe(const Layer<Base, Execution>& layer, LayerFieldsWriter& to) {
    to.set("base", detail::fingerprint_text(base_fingerprint(layer.base())));
    to.set("router", detail::described(layer.router()));
    to.set("gating", detail::described(layer.gating()));
    to.set("experts", detail::described(layer.experts()));
  }
  template <class Base, class Execution>
  static Layer<Base, Execution> make(const LayerFieldsReader& from, Base base, Execution execution) {
    return {detail::policy_of<Router>(from, "router"), detail::policy_of<Gating>(from, "gating"),
            detail::policy_of<Experts>(from, "experts"), std::move(base), std::move(execution)};
  }
};

/// Experts alone, which serve a routing from elsewhere: of another layer, or X-LoRA's of a whole model.
template <DescribedPolicy Experts>
struct ExpertKind {
  template <class Base, class Execution>
  using Layer = ExpertLinear<Experts, Base, Execution>;

  std::string method;

  template <class Base, class Execution>
  static void describe(const Layer<Base, Execution>& layer, LayerFieldsWriter& to) {
    to.set("base", detail::fingerprint_text(base_fingerprint(layer.base())));
    to.set("experts", detail::described(layer.experts()));
  }
  template <class Base, class Execution>
  static Layer<Base, Execution> make(const LayerFieldsReader& from, Base base, Execution execution) {
    return {detail::policy_of<Experts>(from, "experts"), std::move(base), std::move(execution)};
  }
};

namespace detail {
template <class Layer>
struct KindOf;
template <DescribedPolicy Router, DescribedPolicy Gating, DescribedPolicy Experts, class Base, class Execution>
struct KindOf<MixtureLinear<Router, Gating, Experts, Base, Execution>> {
  using type = LayerKind<Router, Gating, Experts>;
};
template <DescribedPolicy Experts, class Base, class Execution>
struct KindOf<ExpertLinear<Experts, Base, Execution>> {
  using type = ExpertKind<Experts>;
};
}  // namespace detail

/// The registry. It is a value whose type lists the compositions, as each is compiled for each base that it is read
/// onto. To add one of policies that have a PolicyDescription:
///
///     const auto kinds = preset_kinds<float>().with<MyRouter, MyGating, MyExperts>("my method");
///     AnyLinear<float> layer = read_layer(path, base, {}, kinds);
template <class... Kinds>
class LayerKinds {
 public:
  explicit LayerKinds(std::tuple<Kinds...> kinds) : kinds_(std::move(kinds)) {}

  /// Throws Error(option) for a name that is taken.
  template <class Router, class Gating, class Experts>
  auto with(std::string method) const {
    return with_kind(LayerKind<Router, Gating, Experts>{std::move(method)});
  }
  template <class Experts>
  auto with_experts(std::string method) const {
    return with_kind(ExpertKind<Experts>{std::move(method)});
  }

  template <class Kind>
  auto with_kind(Kind added) const {
    static_assert(!(std::same_as<Kind, Kinds> || ...), "mole: these LayerKinds have that composition already");
    for_each([&](const auto& kind) {
      require(kind.method != added.method, ErrorCode::option,
              "LayerKinds: expected a method of a name of its own, found '", added.method, "' twice");
    });
    return LayerKinds<Kinds..., Kind>(std::tuple_cat(kinds_, std::tuple(std::move(added))));
  }

  template <class F>
  void for_each(F&& f) const {
    std::apply([&](const auto&... kind) { (f(kind), ...); }, kinds_);
  }

  template <class Kind>
  static constexpr bool has = (std::same_as<Kind, Kinds> || ...);
  template <class Kind>
  const std::string& method() const {
    return std::get<Kind>(kinds_).method;
  }
  /// "lora, mola, loramoe"
  std::string methods() const {
    std::string names;
    for_each([&](const auto& kind) { names += (names.empty() ? "" : ", ") + kind.method; });
    return names;
  }

 private:
  std::tuple<Kinds...> kinds_;
};

/// lora (rsLoRA); mola (also MixLoRA on a linear layer, GOAT, and any other mixture of that composition); loramoe (also
/// HydraLoRA); dyn_mole; smora; flylora; experts, a bank of LoRAs in an ExpertLinear. Ranks, scales and options are
/// those of the layer, whatever preset has made it.
template <class T>
auto preset_kinds() {
  using Lora = LowRank<DenseFactors<T>>;
  return LayerKinds<>({})
      .template with<NoRouter<T>, Gate<Identity, All, Unit>, Lora>("lora")
      .template with<LinearRouter<T>, Gate<Softmax, TopK, Renormalized>, Lora>("mola")
      .template with<LinearRouter<T>, Gate<Softmax, All, Raw>, Lora>("loramoe")
      .template with<LinearRouter<T>, Gate<Softmax, EntropyHybrid, Raw>, Lora>("dyn_mole")
      .template with<RepeatedRouter<T>, Gate<BiasedSigmoid<T>, TopK, Renormalized>, Lora>("smora")
      .template with<LatentRouter<T>, Gate<Magnitude, TopK, Unit>, LowRank<SparseProjection<T>>>("flylora")
      .template with_experts<Lora>("experts");
}

/// The kinds of layers that a file may hold: those of the presets.
template <class T>
using PresetKinds = decltype(preset_kinds<T>());

}  // namespace mole

#include "mole/core/macros_on.hpp"
