// SPDX-License-Identifier: MIT
// write_xlora(): the classifier and the configuration of X-LoRA, in both layouts.
#pragma once

#include "mole/io/encode_floats.hpp"
#include "mole/io/peft/peft_config_json.hpp"
#include "mole/io/replace_file.hpp"
#include "mole/io/safetensors_writer.hpp"
#include "mole/io/xlora/read_xlora.hpp"
#include "mole/router/deep_router.hpp"

#include <algorithm>
#include <concepts>
#include <filesystem>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Whose files they are.
enum class XloraLayout {
  official,  ///< EricLBuehler/xlora: xlora_config.json, xlora_classifier.safetensors
  peft       ///< huggingface/peft: adapter_config.json, adapter_model.safetensors
};

/// In which form an adapter is written.
struct WriteXloraOptions {
  XloraLayout layout = XloraLayout::peft;
  Dtype dtype = Dtype::f32;  ///< of the tensors: F64, F32, F16 or BF16
  /// Where peft finds the adapters, as many as config.adapters; empty: under their names.
  std::vector<std::string> adapter_paths = {};
  std::string base = {};  ///< base_model_name_or_path
  std::string task = {};  ///< task_type
};

namespace detail {

/// What the configurations of both layouts have in common, of a classifier with hidden layers of `width`.
inline LimitedJson::Tree xlora_tree(const XloraConfig& config, Index width, const WriteXloraOptions& options) {
  LimitedJson::Tree tree;
  tree["hidden_size"] = config.hidden_size;
  for (std::size_t e = 0; e < config.adapters.size(); ++e)
    tree["adapters"][config.adapters[e]] =
        options.adapter_paths.empty() ? config.adapters[e] : options.adapter_paths[e];
  tree["enable_softmax"] = config.softmax;
  tree["enable_softmax_topk"] = config.softmax_topk;
  tree["layerwise_scalings"] = config.layerwise;
  tree["xlora_depth"] = config.depth;
  tree["xlora_size"] = width;
  tree["xlora_dropout_p"] = config.dropout;
  tree["use_trainable_adapters"] = config.trainable_adapters;
  tree["softmax_temperature"] = config.temperature;
  tree["top_k_lora"] = config.k == 0 ? LimitedJson::Tree(nullptr) : LimitedJson::Tree(config.k);
  tree["scaling_pass_value"] = config.scaling_pass_value;
  tree["global_scaling_weight"] = config.global_scaling_weight;
  return tree;
}

}  // namespace detail

/// Writes what read_xlora() reads, but for the adapters: those of the official layout belong in the sub-folders of
/// their names (PeftWriter), peft is given paths to its own, whose names have to be "0", "1" ...
///
/// hidden_size, depth and, unless it reads layerwise scalings, the number of experts are those of the classifier, which
/// is that of xlora() or xlora_classifier(). Without hidden activations (config.activations) it can be written in the
/// official layout alone. peft's classifier has biases: zeros are written for one without.
/// Throws Error(option) for an empty or repeated name of an adapter, another number of paths, outputs of the classifier
/// that are not one for each adapter or, layerwise, for each of several layers, and hidden layers of different widths,
/// which no layout has; Error(file) when writing fails, and for peft's layout in a folder of the official one.
template <std::floating_point T>
void write_xlora(const std::filesystem::path& folder, XloraConfig config, const DeepRouter<T>& classifier,
                 const WriteXloraOptions& options = {}) {
  const auto& layers = classifier.parameters().layers;
  const auto refuse_unless = [](bool fits, const auto&... words) {
    require(fits, ErrorCode::option, "write_xlora: expected ", words...);
  };
  const Index experts = Index(config.adapters.size());
  refuse_unless(experts >= 1, "the names of the adapters, found none");
  refuse_unless(options.adapter_paths.empty() || Index(options.adapter_paths.size()) == experts, "a path of each of ",
                experts, " adapters, found ", options.adapter_paths.size());
  for (std::size_t e = 0; e < config.adapters.size(); ++e) {
    refuse_unless(!config.adapters[e].empty(), "a name of each adapter, found an empty one");
    refuse_unless(std::ranges::count(config.adapters, config.adapters[e]) == 1, "each name of an adapter once, found '",
                  config.adapters[e], "' twice");
  }
  config.hidden_size = classifier.in();
  config.depth = 0;
  while (config.depth < Index(layers.size()) && !layers[std::size_t(config.depth)].weight.empty()) ++config.depth;
  const Index width = config.depth > 1 ? layers[0].weight.rows() : 2048;  // without hidden layers nothing has it
  for (Index l = 0; l + 1 < config.depth; ++l)
    refuse_unless(layers[std::size_t(l)].weight.rows() == width, "hidden layers of one width, ", width, ", found ",
                  layers[std::size_t(l)].weight.rows());
  refuse_unless(config.layerwise ? classifier.outputs() % experts == 0 : classifier.outputs() == experts,
                config.layerwise ? "a multiple of " : "", experts, " outputs of the classifier, one for each adapter, ",
                "found ", classifier.outputs());
  const bool official = options.layout == XloraLayout::official, hidden = config.depth > 1;
  refuse_unless(official || !hidden || config.activations, "a classifier with activations, as peft's, found none");
  bool biased = !official;
  for (Index l = 0; l < config.depth; ++l) biased = biased || !layers[std::size_t(l)].bias.empty();

  SafetensorsWriter writer;
  Index number = 0;  // counts activations and dropouts, too
  for (Index l = 0; l < config.depth; ++l) {
    const LinearParameters<T>& layer = layers[std::size_t(l)];
    const bool last = l + 1 == config.depth;
    const std::string name = !official ? "base_model.internal_xlora_classifier.layers." + std::to_string(number) + "."
                             : last    ? "last."
                                       : "inner." + std::to_string(number) + ".";
    number += config.activations ? (official || config.dropout > 0 ? 3 : 2) : 1;
    writer.add_bytes(name + "weight", options.dtype, {layer.weight.rows(), layer.weight.cols()},
                     encode_floats(layer.weight.view(), options.dtype));
    const Matrix<T> bias = layer.bias.empty() ? Matrix<T>(1, layer.weight.rows()) : layer.bias;
    if (biased)
      writer.add_bytes(name + "bias", options.dtype, {bias.cols()}, encode_floats(bias.view(), options.dtype));
  }
  writer.set_metadata("format", "pt");

  detail::LimitedJson::Tree tree = detail::xlora_tree(config, width, options);
  if (official) {
    tree["enable_relu_and_dropout"] = config.activations;
    tree["use_bias"] = biased;
  } else {
    tree["peft_type"] = "XLORA";
    tree["task_type"] = detail::text_or_null(options.task);
    tree["base_model_name_or_path"] = detail::text_or_null(options.base);
    tree["inference_mode"] = true;
  }
  const std::string json = tree.dump(2) + "\n";
  const std::span<const std::byte> bytes = std::as_bytes(std::span(json));
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw file_error(folder.string(), "a folder, or a path for one", error.message());
  if (!official && std::filesystem::exists(folder / "xlora_config.json", error))
    throw file_error(folder.string(), "no 'xlora_config.json' beside peft's layout, as it is read in its place", "one");
  writer.write(folder / (official ? "xlora_classifier.safetensors" : "adapter_model.safetensors"));
  replace_file(folder / (official ? "xlora_config.json" : "adapter_config.json"), std::span(&bytes, 1));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
