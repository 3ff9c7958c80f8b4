// SPDX-License-Identifier: MIT
// Preset, all_presets(): the presets of mole/method/ by name, with options as text.
#pragma once

#include "mole/base/chosen_base.hpp"
#include "mole/base/dense_base.hpp"
#include "mole/base/packed_base.hpp"
#include "mole/c/layer_threads.hpp"
#include "mole/c/option_text.hpp"
#include "mole/c/shared_numbers.hpp"
#include "mole/core/random.hpp"
#include "mole/core/rank/scaling.hpp"
#include "mole/execution/simd.hpp"
#include "mole/layer/any_linear.hpp"

#include <concepts>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole::c {

/// One type of each, so that every preset is compiled once.
using Base = ChosenBase<DenseBase<View<const float>>, PackedBase<float>>;
using Execution = Simd<kernel::DefaultArchitecture, LayerThreads>;

/// What a layer is made of besides its options.
struct Site {
  Base base;  ///< of a block: its gate
  Execution execution;
  /// The weight [O x I] in memory that stays as long as the layer, for experts that compute with it.
  std::function<View<const float>()> weight;
  Rng rng = Rng(0);
  /// Those of the layer to share with, or null; then those that the layer makes.
  std::shared_ptr<SharedNumbers> shared = {};
  /// Lets gradients that the layer has made anew add to those of `shared`.
  std::function<void(AnyLinear<float>&)> attach = {};
  /// Computes the router's parameters from the experts, in presets whose router does not learn.
  std::function<void(AnyLinear<float>&)> renew_router = {};
  /// The other maps of a block, in presets that are one.
  std::optional<Base> up = {}, down = {};
};

/// What the caller gives for a layer: a weight, three of a feed-forward block, or their sizes alone.
enum class Given { weight, sizes, block, sizes_of_block };

struct Preset {
  const char* name;
  Given given;
  bool is_block() const { return given == Given::block || given == Given::sizes_of_block; }
  std::string (*defaults)();
  /// Reads all options; `text` becomes those of the layer.
  AnyLinear<float> (*make)(OptionReader& options, Site& site, std::string& text);
};

template <>
struct Words<Scaling> {
  static constexpr const char* words[] = {"alpha_over_rank", "alpha_over_sqrt_rank", "fixed"};
};

/// Shows those options that methods share by name.
constexpr auto shared_options = [](OptionVisitor& f, auto& options) {
  if constexpr (requires { options.experts; }) f("experts", options.experts);
  if constexpr (requires { options.shared; }) f("shared", options.shared);
  if constexpr (requires { options.rank; }) f("rank", options.rank);
  if constexpr (requires { options.k; }) f("k", options.k);
  if constexpr (requires { options.alpha; }) f("alpha", options.alpha);
  if constexpr (requires { options.scaling; }) f("scaling", options.scaling);
  if constexpr (requires { options.dropout; }) f("dropout", options.dropout);
};

/// A preset whose options `show` shows to a visitor, and whose layer, or AnyLinear, `make` makes. Both are lambdas
/// without captures.
///
///     preset<MolaOptions>("mola", shared_options,
///                         [](const auto& o, Site& s) { return mola(o, s.base, s.rng, s.execution); })
template <class Options, class Show, class Make>
Preset preset(const char* name, Show, Make, Given given = Given::weight) {
  static constexpr auto show_all = [](OptionVisitor& f, Options& options, std::uint64_t& seed) {
    Show{}(f, options);
    f("seed", seed);  // of the initial numbers
  };
  return {name, given,
          [] {
            Options options;
            std::uint64_t seed = 0;
            OptionPrinter printer;
            show_all(printer, options, seed);
            return printer.text();
          },
          [](OptionReader& reader, Site& site, std::string& text) {
            Options options;
            std::uint64_t seed = 0;
            show_all(reader, options, seed);
            reader.end();
            OptionPrinter printer;
            show_all(printer, options, seed);
            text = printer.text();
            site.rng = Rng(seed);
            auto layer = Make{}(std::as_const(options), site);
            if constexpr (std::same_as<decltype(layer), AnyLinear<float>>)
              return layer;
            else
              return AnyLinear<float>(std::move(layer), 1);
          }};
}

/// All presets, by name.
std::span<const Preset> all_presets();
/// One of them; throws Error(option) for another name.
const Preset& preset_named(std::string_view name);

/// Parts of all_presets(): what a mixture of dense LoRAs is; one adapter for every token; what has experts of its own
/// kind; layers that share what they train; and feed-forward blocks.
std::vector<Preset> lora_mixture_presets();
std::vector<Preset> single_adapter_presets();
std::vector<Preset> other_expert_presets();
std::vector<Preset> shared_pool_presets();
std::vector<Preset> block_presets();

}  // namespace mole::c

#include "mole/core/macros_on.hpp"
