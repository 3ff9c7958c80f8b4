// SPDX-License-Identifier: MIT
// PeftModules: the modules that a PeftWriter has collected, and the configuration that describes them.
#pragma once

#include "mole/core/error.hpp"
#include "mole/io/peft/peft_adapter.hpp"
#include "mole/io/peft/peft_config_json.hpp"
#include "mole/io/replace_file.hpp"
#include "mole/io/safetensors_writer.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole::detail {

/// alpha with alpha / over = scale, a whole number if one gives this scale, in float where that is what it is.
inline double alpha_for(double scale, double over) {
  const double alpha = scale * over, whole = std::round(alpha);
  const bool is_float = double(float(scale)) == scale;
  return (is_float ? double(float(whole / over)) : whole / over) == scale ? whole : alpha;
}

/// The whole of a path, and no other that ends in it, as a regular expression.
inline std::string exactly(std::string_view path) {
  std::string expression = "^";
  for (const char c : path) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
                       static_cast<unsigned char>(c) >= 128;
    if (!plain) expression += '\\';
    expression += c;
  }
  return expression;
}

/// What `decompose_factor` makes of a size; 0: near to the square root.   huggingface/peft, lokr/layer.py,
/// factorization
inline std::array<Index, 2> peft_factors(Index size, Index factor) {
  if (factor > 0 && size % factor == 0) return {factor, size / factor};
  Index smaller = 1;
  for (Index d = 1; d <= size / d && (factor == 0 || d <= factor); ++d)
    if (size % d == 0) smaller = d;
  return {smaller, size / smaller};
}

/// Tensors are given as bytes; ranks and scales become patterns where they differ. Errors are those of PeftWriter.
class PeftModules {
 public:
  struct Module {
    Index rank;
    double scale;
    bool bias = false, magnitude = false;
    std::string parameter = {};  ///< of stacked experts: the path of the host's tensor

    const std::string& name(const std::string& path) const { return parameter.empty() ? path : parameter; }
  };
  /// Of a LoKr: what peft computes its sizes from.
  struct Kronecker {
    std::array<Index, 2> in, out;  ///< {m, n} and {l, k}
    bool low1, low2;
  };

  explicit PeftModules(PeftConfig config) : config_(std::move(config)) {}

  Module& open(const std::string& path, PeftKind kind, Index rank, double scale) {
    require(!path.empty() && path.find('\0') == path.npos && !path.starts_with('.') && !path.ends_with('.'),
            ErrorCode::option, "PeftWriter: expected the path of a module, found '", path, "'");
    require(modules_.empty() || kind == config_.kind, ErrorCode::option, "PeftWriter: expected another module of ",
            name_of(config_.kind), ", found '", path, "' of ", name_of(kind));
    require(rank >= (kind == PeftKind::adalora ? 0 : 1) && std::isfinite(scale), ErrorCode::option,
            "PeftWriter: expected a rank and a scale at '", path, "', found a rank of ", rank, " and a scale of ",
            scale);
    const auto [place, first] = modules_.emplace(path, Module{rank, scale});
    require(first, ErrorCode::option, "PeftWriter: expected each path once, found '", path, "' twice");
    config_.kind = kind;
    return place->second;
  }
  /// Throws unless the frozen matrices of this module are those of the first.
  void require_shared(const std::string& path, std::uint64_t fingerprint) const {
    require(!shared_ || *shared_ == fingerprint, ErrorCode::option, "PeftWriter: expected '", path,
            "' over the frozen matrices of the first module, found it over others");
  }
  /// Are they to be written? They are those of the first module.
  bool share(std::uint64_t fingerprint) {
    const bool first = !shared_;
    shared_ = fingerprint;
    return first;
  }
  Module& at(const std::string& path) { return modules_.at(path); }
  void set_kronecker(const std::string& path, const Kronecker& sizes) { kronecker_.emplace(path, sizes); }

  /// An empty path: of all modules.
  void add_bytes(const std::string& path, std::string_view suffix, Dtype dtype, std::vector<Index> shape,
                 std::span<const std::byte> bytes) {
    writer_.add_bytes((path.empty() ? "base_model." : "base_model.model." + path + ".") + std::string(suffix), dtype,
                      std::move(shape), bytes);
  }
  void replace(const std::string& name, const PeftTensor& tensor) {
    const std::size_t dot = name.rfind('.');
    require(dot != name.npos && dot > 0, ErrorCode::option,
            "PeftWriter: expected the name of a tensor in a module, found '", name, "'");
    replaced_.emplace(name, tensor);
  }

  void write(const std::filesystem::path& folder) const;

 private:
  PeftConfig finished_config() const;
  void add_patterns(PeftConfig& config) const;
  void add_kept_ranks(PeftConfig& config, double scale) const;
  void add_kronecker(PeftConfig& config) const;

  PeftConfig config_;
  std::map<std::string, Module> modules_;
  std::map<std::string, Kronecker> kronecker_;
  std::map<std::string, PeftTensor> replaced_;
  std::optional<std::uint64_t> shared_;
  SafetensorsWriter writer_;
};

/// The rank and alpha of most modules, and patterns for the others.
inline void PeftModules::add_patterns(PeftConfig& config) const {
  const auto most_common = [&](auto value_of) {
    std::map<double, int> counts;
    for (const auto& [path, module] : modules_) ++counts[value_of(module)];
    return std::ranges::max_element(counts, {}, [](const auto& count) { return count.second; })->first;
  };
  const auto rank = [](const Module& module) { return double(module.rank); };
  const auto alpha = [](const Module& module) { return alpha_for(module.scale, double(module.rank)); };
  config.rank = Index(most_common(rank));
  config.alpha = most_common(alpha);
  for (const auto& [path, module] : modules_) {
    if (module.rank != config.rank)
      config.rank_pattern.push_back({PathPattern(exactly(module.name(path))), rank(module)});
    if (alpha(module) != config.alpha)
      config.alpha_pattern.push_back({PathPattern(exactly(module.name(path))), alpha(module)});
  }
}

/// The scale is alpha over the initial rank, here the largest, and what peft adds to it.
inline void PeftModules::add_kept_ranks(PeftConfig& config, double scale) const {
  for (const auto& [path, module] : modules_) config.rank = std::max(config.rank, module.rank);
  require(config.rank >= 1 && scale > 0, ErrorCode::option,
          "PeftWriter: expected AdaLoRA with ranks and a positive scale, found ", config.rank, " and ", scale);
  for (const auto& [path, module] : modules_)
    if (module.rank != config.rank) config.kept_ranks.emplace(path, module.rank);
  config.alpha = alpha_for(scale, double(config.rank) + 1e-5);
}

inline void PeftModules::add_kronecker(PeftConfig& config) const {
  std::vector<Index> candidates{0};
  for (const auto& [path, sizes] : kronecker_) {
    config.decompose_both = config.decompose_both || sizes.low1;
    for (const Index factor : {sizes.in[0], sizes.out[0]}) candidates.push_back(factor);
  }
  const auto fits = [&](Index factor) {
    return std::ranges::all_of(kronecker_, [&](const auto& each) {
      const Kronecker& sizes = each.second;
      const auto is_low = [&](std::size_t i) {
        return 2 * modules_.at(each.first).rank < std::max(sizes.in[i], sizes.out[i]);
      };
      return peft_factors(sizes.in[0] * sizes.in[1], factor) == sizes.in &&
             peft_factors(sizes.out[0] * sizes.out[1], factor) == sizes.out && is_low(1) == sizes.low2 &&
             (config.decompose_both && is_low(0)) == sizes.low1;
    });
  };
  const auto found = std::ranges::find_if(candidates, fits);
  require(found != candidates.end(), ErrorCode::option,
          "PeftWriter: expected the sizes that one decompose_factor of peft gives all modules, found others");
  config.decompose_factor = *found;
}

inline PeftConfig PeftModules::finished_config() const {
  require(!modules_.empty(), ErrorCode::option, "PeftWriter: expected at least 1 module, found 0");
  PeftConfig config = config_;
  const std::string& first_path = modules_.begin()->first;
  const Module& first = modules_.begin()->second;
  const auto require_all = [&](const char* what, auto value_of) {
    for (const auto& [path, module] : modules_)
      require(value_of(module) == value_of(first), ErrorCode::option, "PeftWriter: expected the same ", what,
              " for all modules of ", name_of(config.kind), ", found ", double(value_of(module)), " at '", path,
              "' and ", double(value_of(first)), " at '", first_path, "'");
  };
  require_all("bias of B, with or without,", [](const Module& module) { return module.bias; });
  require_all("magnitude, with or without,", [](const Module& module) { return module.magnitude; });
  config.lora_bias = first.bias, config.decomposed = first.magnitude;
  if (config.kind == PeftKind::lora || config.kind == PeftKind::loha || config.kind == PeftKind::lokr) {
    add_patterns(config);
    if (config.kind == PeftKind::lokr) add_kronecker(config);
  } else {
    require_all("scale", [](const Module& module) { return float(module.scale); });
    config.rank = first.rank;
    if (config.kind == PeftKind::adalora)
      add_kept_ranks(config, first.scale);
    else
      require_all("rank", [](const Module& module) { return module.rank; });
    if (config.kind == PeftKind::randlora) config.alpha = alpha_for(first.scale, double(first.rank));
    if (config.kind == PeftKind::vera)
      require(first.scale == 1, ErrorCode::option, "PeftWriter: expected VeRA of scale 1, found ", first.scale);
  }
  for (const auto& [path, module] : modules_)
    (module.parameter.empty() ? config.target_modules : config.target_parameters).push_back(module.name(path));
  return config;
}

inline void PeftModules::write(const std::filesystem::path& folder) const {
  PeftConfig config = finished_config();
  SafetensorsWriter writer = writer_;
  writer.set_metadata("format", "pt");
  for (const auto& [name, tensor] : replaced_) {
    const std::string module = name.substr(0, name.rfind('.')), own = name.substr(module.size());
    const bool of_base = modules_.contains(module),
               lone_bias = own == ".bias" && !replaced_.contains(module + ".weight");
    if (lone_bias && !(of_base && config.bias == "all")) config.bias = of_base ? "lora_only" : "all";
    if (!of_base && !lone_bias && std::ranges::find(config.modules_to_save, module) == config.modules_to_save.end())
      config.modules_to_save.push_back(module);
    writer.add_bytes("base_model.model." + module + (of_base ? ".base_layer" : "") + own, tensor.entry->dtype,
                     tensor.entry->shape, tensor.entry->bytes);
  }
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw file_error(folder.string(), "a folder, or a path for one", error.message());
  writer.write(folder / "adapter_model.safetensors");
  const std::string json = json_of(config);
  const std::span<const std::byte> bytes = std::as_bytes(std::span(json));
  replace_file(folder / "adapter_config.json", std::span(&bytes, 1));
}

}  // namespace mole::detail

#include "mole/core/macros_on.hpp"
