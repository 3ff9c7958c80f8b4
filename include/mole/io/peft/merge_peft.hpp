// SPDX-License-Identifier: MIT
// merge_peft(): an adapter of peft as part of the weights of a checkpoint.
#pragma once

#include "mole/io/encode_floats.hpp"
#include "mole/io/peft/peft_experts.hpp"
#include "mole/io/rewrite_shards.hpp"

#include <concepts>
#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

struct MergePeftOptions {
  /// The checkpoint has the weights that the adapter was trained on, without what its initialization took out of them
  /// (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA). Unless it is set, such an adapter is refused.
  bool base_is_changed = false;
};

namespace detail {

/// Which tensors of a checkpoint an adapter changes, and their new numbers.
template <std::floating_point T>
class PeftMerging {
 public:
  PeftMerging(const PeftAdapter& adapter, const SafetensorsShards& host)
      : adapter_(adapter),
        host_(host),
        experts_(std::shared_ptr<const PeftAdapter>(std::shared_ptr<void>(), &adapter)) {
    for (const PeftModule& module : adapter.modules) add(module);
    for (const auto& [name, tensor] : adapter.replaced) replace(name, tensor);
    for (const std::string& name : adapter.report.unused) {  // the host tells which of them are its own
      const std::string_view path = peft_place(adapter.config.kind, name).path;
      const SafetensorsReader& file = adapter.files->reader_of(name);
      if (find_in_host(path)) replace(std::string(path), unused_.emplace_back(PeftTensor{&file, &file.at(name)}));
    }
    for (const auto& [name, change] : changes_) {
      const Dtype dtype = host.at(name).dtype;
      if (dtype != Dtype::f64 && dtype != Dtype::f32 && dtype != Dtype::f16 && dtype != Dtype::bf16)
        fail("F64, F32, F16 or BF16 for '" + name + "', which the adapter changes", std::string(name_of(dtype)));
    }
  }

  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& [name, change] : changes_) names.push_back(name);
    return names;
  }

  std::optional<std::vector<std::byte>> bytes(const SafetensorsEntry& entry) {
    const auto found = changes_.find(entry.name);
    if (found == changes_.end()) return {};
    const Change& change = found->second;
    Matrix<T> numbers = change.replaced ? change.replaced->template matrix<T>() : host_.matrix<T>(entry.name);
    if (change.bias_of) {
      experts_.visit(change.bias_of->path, 0, 0, {}, [&]<class Experts>(const Experts& experts) {
        if constexpr (std::same_as<Experts, BiasedExperts<LowRank<DenseFactors<T>>>>)
          for (Index o = 0; o < numbers.cols(); ++o) numbers(0, o) += experts.scale()[0] * experts.bias()(0, o);
      });
    } else if (change.weight_of) {
      const bool embedding = change.weight_of->has("lora_embedding_A");
      const bool turned = embedding || adapter_.config.fan_in_fan_out;
      if (turned) numbers = transposed(numbers);
      add_update(*change.weight_of, embedding, numbers);
      if (turned) numbers = transposed(numbers);
    }
    return encode_floats(numbers.view(), entry.dtype);
  }

 private:
  struct Change {
    const PeftTensor* replaced = nullptr;
    const PeftModule* weight_of = nullptr;
    const PeftModule* bias_of = nullptr;
  };

  [[noreturn]] void fail(const std::string& expected, const std::string& found) const {
    throw file_error(host_.source(), expected, found);
  }

  void replace(const std::string& name, const PeftTensor& tensor) {
    Change& change = changes_[name_in_host(name)];
    if (change.replaced)
      throw file_error(adapter_.source, "one tensor for '" + name_in_host(name) + "' of the host",
                       "'" + change.replaced->entry->name + "' and '" + tensor.entry->name + "'");
    change.replaced = &tensor;
    require_shape(name, tensor.shape());
  }

  void add(const PeftModule& module) {
    if (module.stacked)
      throw file_error(adapter_.source, "modules whose weights a checkpoint has under their own names",
                       "'" + module.path + "', of target_parameters");
    const std::string weight = name_in_host(module.path + ".weight");
    if (const PeftModule* other = std::exchange(changes_[weight].weight_of, &module))
      throw file_error(adapter_.source, "one module for '" + weight + "' of the host",
                       "'" + other->path + "' and '" + module.path + "'");
    const std::vector<Index>& shape = host_.at(weight).shape;
    if (shape.size() != 2) fail("a matrix '" + weight + "'", std::to_string(shape.size()) + " dimensions");
    const auto require_size = [&](std::string_view a, std::size_t of_a, std::string_view b, std::size_t of_b) {
      const Index rows = adapter_.tensor(module, b).shape()[of_b], cols = adapter_.tensor(module, a).shape()[of_a];
      const bool turned = adapter_.config.fan_in_fan_out || module.has("lora_embedding_A");
      require_shape(weight, turned ? std::vector{cols, rows} : std::vector{rows, cols});
    };
    if (module.has("lora_A.weight")) require_size("lora_A.weight", 1, "lora_B.weight", 0);
    if (module.has("lora_embedding_A")) require_size("lora_embedding_A", 1, "lora_embedding_B", 0);
    if (module.has("lora_B.bias")) {
      const std::string bias = name_in_host(module.path + ".bias");
      changes_[bias].bias_of = &module;
      require_shape(bias, module.tensors.find("lora_B.bias")->second.shape());
    }
  }

  /// The name itself, or without its first step, as transformers saves models that are the inner part of others.
  std::string name_in_host(const std::string& name) const {
    if (auto found = find_in_host(name)) return *found;
    fail("a tensor '" + without_base_layers(name) + "', which the adapter changes", "none of that name");
  }
  std::optional<std::string> find_in_host(std::string_view name) const {
    const std::string own = without_base_layers(name);
    if (host_.has(own)) return own;
    const std::size_t dot = own.find('.');
    if (dot != own.npos && host_.has(own.substr(dot + 1))) return own.substr(dot + 1);
    return {};
  }

  void require_shape(const std::string& name, const std::vector<Index>& expected) const {
    const std::string in_host = name_in_host(name);
    if (host_.at(in_host).shape == expected) return;
    const auto written = [](const std::vector<Index>& shape) {
      std::string sizes;
      for (const Index size : shape) sizes += (sizes.empty() ? "[" : " x ") + std::to_string(size);
      return sizes + "]";
    };
    fail("'" + in_host + "' of " + written(expected) + ", as of the adapter", written(host_.at(in_host).shape));
  }

  static Matrix<T> transposed(const Matrix<T>& matrix) {
    Matrix<T> turned(matrix.cols(), matrix.rows());
    if (matrix.empty()) return turned;  // a size beside a 0 may be any number
    for (Index r = 0; r < matrix.rows(); ++r)
      for (Index c = 0; c < matrix.cols(); ++c) turned(c, r) = matrix(r, c);
    return turned;
  }

  void add_update(const PeftModule& module, bool embedding, Matrix<T>& weight) {
    const Matrix<T> before = adapter_.config.decomposed ? weight : Matrix<T>();  // DoRA borrows what it measures
    if (embedding && adapter_.config.decomposed)
      return experts_.dora(module.path, before.view()).add_delta(0, 1, weight);
    if (embedding) return experts_.embedding(module.path).add_delta(0, 1, weight);
    experts_.visit(module.path, weight.cols(), weight.rows(), before.view(),
                   [&]<class Experts>(const Experts& experts) {
                     require(experts.in() == weight.cols() && experts.out() == weight.rows(), ErrorCode::shape,
                             "merge_peft: expected a weight [", experts.out(), " x ", experts.in(), "] at '",
                             module.path, "', found [", weight.rows(), " x ", weight.cols(), "]");
                     if constexpr (requires { experts.unbiased(); })
                       experts.unbiased().add_delta(0, 1, weight);
                     else
                       experts.add_delta(0, 1, weight);
                   });
  }

  const PeftAdapter& adapter_;
  const SafetensorsShards& host_;
  PeftExperts<T> experts_;
  std::deque<PeftTensor> unused_;  // by the adapter's own word, which the host has
  std::map<std::string, Change> changes_;
};

}  // namespace detail

/// Writes the checkpoint `host` into `folder`, under the names of its files, with the adapter in its weights: what
/// peft's merge_and_unload() gives, of every kind that read_peft() reads but for target_parameters. Returns the names
/// of the tensors that have changed.
///
///   W += scale B A  (of DoRA the whole of W),   a bias += that of B,   modules_to_save and biases take their places
///
/// Tensors of no module take the places of those that the host has under their names, too, as when peft loads them:
/// embeddings that were saved as their size had changed fit a host that has changed alike. A module's weight is
/// "<path>.weight" of the host, or that without its first step ("transformer."). Sums are taken in T and rounded to the
/// dtype of the host's tensor. Memory: one tensor in T, two of DoRA. Files as by rewrite_shards(); nothing is written
/// if the adapter does not fit. Tied weights stay tied: a checkpoint has them once.
/// Throws Error(option) for a mixture and for an adapter that has changed its base (base_is_changed), Error(file) for a
/// tensor that the host lacks or has in another shape or dtype, and for two that would change one of the host,
/// Error(shape) for one that does not fit.
/// Source: huggingface/peft 0.21.2, tuners/*/layer.py, merge.
template <std::floating_point T = float>
std::vector<std::string> merge_peft(const PeftAdapter& adapter, const SafetensorsShards& host,
                                    const std::filesystem::path& folder, const MergePeftOptions& options = {}) {
  require(options.base_is_changed || !adapter.config.changes_base(), ErrorCode::option, adapter.source,
          ": expected an adapter for a base as it was published, or base_is_changed, found one that starts from ",
          adapter.config.init, ", which changes the weights");
  require(!is_mixture(adapter.config.kind), ErrorCode::option, adapter.source,
          ": expected what one weight can say, found ", name_of(adapter.config.kind), ", with a router");
  detail::PeftMerging<T> merging(adapter, host);
  rewrite_shards(host, folder, [&](const SafetensorsEntry& entry) { return merging.bytes(entry); });
  return merging.names();
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
