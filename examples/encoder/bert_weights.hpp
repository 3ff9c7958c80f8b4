// SPDX-License-Identifier: MIT
// BertWeights: the tensors of a checkpoint under their names.
#pragma once

#include "encoder/bert_config.hpp"
#include "encoder/layer_norm.hpp"
#include "mole/io/safetensors_shards.hpp"

#include <cstdint>
#include <list>
#include <string>
#include <utility>

namespace encoder {

/// Numbers that the file stores as T are borrowed from it, mapped; others are converted once. Views live as long as the
/// object. Names may begin with "bert.", as a model with a head has them.
template <class T>
class BertWeights {
 public:
  explicit BertWeights(mole::SafetensorsShards shards)
      : shards_(std::move(shards)), prefix_(shards_.has("bert.embeddings.word_embeddings.weight") ? "bert." : "") {}

  /// Throws mole::Error(file) if there is none, or not of these sizes; vectors are [1 x cols].
  mole::View<const T> get(const std::string& name, mole::Index rows, mole::Index cols) {
    const mole::View<const T> found = read(prefix_ + name);
    if (found.size() != rows * cols || (rows > 1 && found.cols() != cols))
      throw mole::Error(mole::ErrorCode::file, shards_.source() + ": '" + prefix_ + name + "': expected " +
                                                   std::to_string(rows) + " x " + std::to_string(cols) + ", found " +
                                                   std::to_string(found.rows()) + " x " + std::to_string(found.cols()));
    return {found.data(), rows, cols};
  }
  LayerNorm<T> norm(const std::string& name, const BertConfig& config) {
    return {get(name + ".weight", 1, config.width), get(name + ".bias", 1, config.width), config.norm_eps};
  }
  /// The first size of a tensor.
  mole::Index rows_of(const std::string& name) { return read(prefix_ + name).rows(); }

 private:
  mole::View<const T> read(const std::string& name) {
    const mole::SafetensorsEntry& entry = shards_.at(name);
    const bool aligned = reinterpret_cast<std::uintptr_t>(entry.bytes.data()) % alignof(T) == 0;
    if (entry.dtype == mole::dtype_of<T>() && aligned) return shards_.view<T>(name);
    return converted_.emplace_back(shards_.matrix<T>(name)).view();
  }

  mole::SafetensorsShards shards_;
  std::string prefix_;
  std::list<mole::Matrix<T>> converted_;  // elements keep their place
};

}  // namespace encoder
