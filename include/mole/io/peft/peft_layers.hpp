// SPDX-License-Identifier: MIT
// PeftLayers: the modules of an adapter as layers, whatever their kind.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/execution/default_execution.hpp"
#include "mole/io/peft/peft_experts.hpp"
#include "mole/io/peft/peft_mixtures.hpp"
#include "mole/layer/any_linear.hpp"
#include "mole/method/one_adapter.hpp"

#include <concepts>
#include <string_view>
#include <type_traits>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// How layers of an adapter are set up.
struct PeftLayersOptions {
  Index max_tokens = 1;
  /// The bases that are given are those which the adapter was trained on: with the biases and weights that it replaces
  /// (PeftAdapter::replaced), and with what its initialization took out of the weights (PiSSA, OLoRA, CorDA, LoftQ,
  /// LoRA-GA). Unless it is set, an adapter that needs it is refused.
  bool bases_are_changed = false;
};

/// Makes layers whose types the caller need not name: base(x) + what the adapter adds, for every token, or, of a
/// mixture, what its router chooses.
///
///     PeftLayers<float> layers(read_peft(folder), {.max_tokens = 512});
///     AnyLinear<float> q = layers.layer("model.layers.0.self_attn.q_proj", DenseBase{weight});
///
/// DoRA measures the base's weight: a base other than one that borrows floats is given them, too. Stacked experts and
/// embeddings, which are no linear layers, are made by PeftExperts. Throws Error(shape) if a base does not fit.
template <std::floating_point T, class Execution = DefaultExecution>
class PeftLayers {
 public:
  explicit PeftLayers(PeftAdapter adapter, const PeftLayersOptions& options = {}, Execution execution = {})
      : experts_(std::move(adapter)), options_(options), execution_(std::move(execution)) {
    require(options.bases_are_changed || !adapter_().config.changes_base(), ErrorCode::option, adapter_().source,
            ": expected an adapter for a base as it was published, or bases_are_changed, found one that starts from ",
            adapter_().config.init, ", which changes the weights");
  }

  const PeftAdapter& adapter() const { return adapter_(); }

  /// `weight` [O x I] is for DoRA alone, in memory that outlives the layer; by default that of the base.
  template <BasePolicy Base>
  AnyLinear<T> layer(std::string_view path, Base base, View<const T> weight = {}) {
    for (const char* tensor : {".weight", ".bias"})
      require(options_.bases_are_changed || !adapter_().replaced.contains(std::string(path) + tensor),
              ErrorCode::option, adapter_().source, ": expected bases_are_changed for an adapter that replaces '", path,
              tensor, "', found it unset");
    if constexpr (std::same_as<Base, DenseBase<View<const T>>>)  // one that owns it may be copied, and the first gone
      if (!weight) weight = base.weight();
    if (is_mixture(adapter_().config.kind))
      return PeftMixtures<T>(adapter_()).visit(path, std::move(base), execution_, [&](auto layer) {
        return AnyLinear<T>(std::move(layer), options_.max_tokens);
      });
    const Index in = base.in(), out = base.out();
    return experts_.visit(path, in, out, weight, [&](auto experts) {
      return AnyLinear<T>(one_adapter(std::move(experts), std::move(base), execution_), options_.max_tokens);
    });
  }

 private:
  const PeftAdapter& adapter_() const { return experts_.adapter(); }

  PeftExperts<T> experts_;
  PeftLayersOptions options_;
  [[no_unique_address]] Execution execution_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
