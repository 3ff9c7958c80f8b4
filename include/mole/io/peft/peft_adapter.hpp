// SPDX-License-Identifier: MIT
// PeftAdapter: an adapter as a folder of peft's holds it, tensor by tensor.
#pragma once

#include "mole/io/peft/peft_config.hpp"
#include "mole/io/peft/peft_keys.hpp"
#include "mole/io/read_report.hpp"
#include "mole/io/safetensors_shards.hpp"

#include <algorithm>
#include <concepts>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A tensor in a file that its PeftAdapter holds open.
struct PeftTensor {
  const SafetensorsReader* file;
  const SafetensorsEntry* entry;

  const std::vector<Index>& shape() const { return entry->shape; }
  /// A copy, as SafetensorsReader::matrix: [n] is 1 x n, [a, b, c] is a x (b c).
  template <std::floating_point T>
  Matrix<T> matrix() const {
    return file->matrix<T>(entry->name);
  }
  template <std::floating_point T>
  Matrix<T> transposed() const {
    return file->transposed<T>(entry->name);
  }
  /// In place, if the file stores T.
  template <class T>
  View<const T> view() const {
    return file->view<T>(entry->name);
  }
};
/// Tensors by name: the suffixes of peft_keys.hpp, or names of the host.
using PeftTensors = std::map<std::string, PeftTensor, std::less<>>;

/// What an adapter adds to one linear layer of its host.
struct PeftModule {
  std::string path;  ///< "model.layers.0.self_attn.q_proj"; of stacked experts also "...experts.base_layer"
  double scale = 1;  ///< of the update; 0 for stacked experts, see stacked_lora_experts()
  PeftTensors tensors;
  bool stacked = false;  ///< of experts in one parameter (target_parameters)

  bool has(std::string_view suffix) const { return tensors.contains(suffix); }
};

/// The configuration and all tensors of an adapter. Movable; views live as long as it.
struct PeftAdapter {
  std::string source;  ///< the folder
  PeftConfig config;
  std::vector<PeftModule> modules;  ///< in the order of their paths
  PeftTensors shared;               ///< "vera_A": of all modules
  PeftTensors replaced;  ///< "score.weight": what takes the place of the host's own (modules_to_save, biases)
  ReadReport report;
  std::shared_ptr<const SafetensorsShards> files;

  bool has(std::string_view path) const { return find(path) != nullptr; }
  /// Throws Error(option) unless the adapter has that module.
  const PeftModule& at(std::string_view path) const {
    if (const PeftModule* found = find(path)) return *found;
    throw Error(ErrorCode::option, source + ": expected one of its " + std::to_string(modules.size()) +
                                       " modules, such as '" + (modules.empty() ? "" : modules.front().path) +
                                       "', found '" + std::string(path) + "'");
  }
  /// The tensor of that suffix, of the module or of all. Throws Error(option) if there is none.
  const PeftTensor& tensor(const PeftModule& module, std::string_view suffix) const {
    for (const PeftTensors* tensors : {&module.tensors, &shared})
      if (const auto found = tensors->find(suffix); found != tensors->end()) return found->second;
    throw Error(ErrorCode::option,
                source + ": expected a tensor '" + std::string(suffix) + "' of '" + module.path + "', found none");
  }

 private:
  const PeftModule* find(std::string_view path) const {
    const auto found =
        std::ranges::lower_bound(modules, path, {}, [](const PeftModule& m) -> std::string_view { return m.path; });
    return found != modules.end() && found->path == path ? &*found : nullptr;
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
