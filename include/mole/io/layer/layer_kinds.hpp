// SPDX-License-Identifier: MIT
// LayerKinds: the compositions that a program can make from a file, by the names of their methods.
#pragma once

#include "mole/io/layer/preset_descriptions.hpp"
#include "mole/layer/mixture_linear.hpp"

#include <concepts>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A router, a gating and experts, on a base that the reader of a file brings.
template <DescribedPolicy Router_, DescribedPolicy Gating_, DescribedPolicy Experts_>
struct LayerKind {
  using Router = Router_;
  using Gating = Gating_;
  using Experts = Experts_;
  template <class Base, class Execution>
  using Layer = MixtureLinear<Router, Gating, Experts, Base, Execution>;

  std::string method;
};

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
    using Kind = LayerKind<Router, Gating, Experts>;
    static_assert(!(std::same_as<Kind, Kinds> || ...), "mole: these LayerKinds have that composition already");
    for_each([&](const auto& kind) {
      require(kind.method != method, ErrorCode::option, "LayerKinds: expected a method of a name of its own, found '",
              method, "' twice");
    });
    return LayerKinds<Kinds..., Kind>(std::tuple_cat(kinds_, std::tuple(Kind{std::move(method)})));
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
/// HydraLoRA); dyn_mole; smora; flylora. Ranks, scales and options are those of the layer, whatever preset has made it.
template <class T>
auto preset_kinds() {
  using Lora = LowRank<DenseFactors<T>>;
  return LayerKinds<>({})
      .template with<NoRouter<T>, Gate<Identity, All, Unit>, Lora>("lora")
      .template with<LinearRouter<T>, Gate<Softmax, TopK, Renormalized>, Lora>("mola")
      .template with<LinearRouter<T>, Gate<Softmax, All, Raw>, Lora>("loramoe")
      .template with<LinearRouter<T>, Gate<Softmax, EntropyHybrid, Raw>, Lora>("dyn_mole")
      .template with<RepeatedRouter<T>, Gate<BiasedSigmoid<T>, TopK, Renormalized>, Lora>("smora")
      .template with<LatentRouter<T>, Gate<Magnitude, TopK, Unit>, LowRank<SparseProjection<T>>>("flylora");
}

template <class T>
using PresetKinds = decltype(preset_kinds<T>());

}  // namespace mole

#include "mole/core/macros_on.hpp"
