// SPDX-License-Identifier: MIT
// SafetensorsShards: the tensors of a folder, in one safetensors file or in several with an index.
#pragma once

#include "mole/io/limited_json.hpp"
#include "mole/io/safetensors_reader.hpp"

#include <concepts>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Tensors by name, of `<folder>/<stem>.safetensors` or, if that is absent, of the shards that
/// `<folder>/<stem>.safetensors.index.json` lists, with what these shards hold beyond it: a model of transformers under
/// the stem "model", an adapter of peft under "adapter_model".
///
/// Opening maps the files and checks their headers; what a tensor holds is read when it is used, and `view` borrows it.
/// A linear layer on a weight of the file, without a copy if it is stored as floats:
///     DenseBase base{model.view<float>("model.layers.0.self_attn.q_proj.weight")}
/// F16 and BF16 likewise by read_safetensors_weight(); `matrix` converts them and F64, `transposed` what Conv1D stores
/// as [I x O]. Move-only; views live as long as the object.
/// Throws Error(file) if neither file is there, for a broken index or shard, for a shard outside of the folder, and for
/// a tensor that its shard lacks.
class SafetensorsShards {
 public:
  explicit SafetensorsShards(const std::filesystem::path& folder, const std::string& stem = "model");
  /// Of one file that is open already, such as bytes in memory; `source` is its name in messages.
  SafetensorsShards(SafetensorsReader reader, std::string source) : source_(std::move(source)) {
    files_[source_] = std::make_unique<SafetensorsReader>(std::move(reader));
    add_all(*files_[source_]);
  }

  /// Of a folder, of an index, whose shards lie beside it, or of a file.
  static SafetensorsShards of(const std::filesystem::path& path) {
    constexpr std::string_view index = ".safetensors.index.json";
    const std::string name = path.filename().string();
    std::error_code ignored;
    if (name.ends_with(index)) return SafetensorsShards(path.parent_path(), name.substr(0, name.size() - index.size()));
    if (std::filesystem::is_directory(path, ignored)) return SafetensorsShards(path);
    return SafetensorsShards(SafetensorsReader(path), path.string());
  }

  /// The reader of each tensor, in the order of names.
  const std::map<std::string, const SafetensorsReader*, std::less<>>& tensors() const { return tensors_; }
  std::size_t files() const { return files_.size(); }
  /// f(name of the file, its reader), in the order of names.
  template <class F>
  void for_each_file(F&& f) const {
    for (const auto& [name, reader] : files_) f(name, *reader);
  }
  /// The path of the file, or of the index.
  const std::string& source() const { return source_; }

  bool has(std::string_view name) const { return tensors_.contains(name); }
  const SafetensorsReader& reader_of(std::string_view name) const {
    const auto found = tensors_.find(name);
    if (found != tensors_.end()) return *found->second;
    throw file_error(source_, "a tensor named '" + std::string(name) + "'",
                     "none of that name among " + std::to_string(tensors_.size()));
  }

  const SafetensorsEntry& at(std::string_view name) const { return reader_of(name).at(name); }
  template <std::floating_point T>
  Matrix<T> matrix(std::string_view name) const {
    return reader_of(name).template matrix<T>(name);
  }
  template <class T>
  View<const T> view(std::string_view name) const {
    return reader_of(name).template view<T>(name);
  }
  template <std::floating_point T>
  Matrix<T> transposed(std::string_view name) const {
    return reader_of(name).template transposed<T>(name);
  }

 private:
  const SafetensorsReader& open(const std::filesystem::path& path) {
    const auto [file, first] = files_.try_emplace(path.filename().string(), nullptr);
    if (first) file->second = std::make_unique<SafetensorsReader>(path);
    return *file->second;
  }
  void open_index(const std::filesystem::path& folder);
  void add_all(const SafetensorsReader& reader) {
    for (const SafetensorsEntry& entry : reader.tensors()) tensors_[entry.name] = &reader;
  }

  std::string source_;
  std::map<std::string, std::unique_ptr<SafetensorsReader>> files_;
  std::map<std::string, const SafetensorsReader*, std::less<>> tensors_;
};

inline SafetensorsShards::SafetensorsShards(const std::filesystem::path& folder, const std::string& stem) {
  const std::filesystem::path whole = folder / (stem + ".safetensors"),
                              index = folder / (stem + ".safetensors.index.json");
  std::error_code ignored;
  if (std::filesystem::exists(whole, ignored)) {
    source_ = whole.string();
    add_all(open(whole));
  } else if (std::filesystem::exists(index, ignored)) {
    source_ = index.string();
    open_index(folder);
  } else if (std::filesystem::exists(folder / (stem + ".bin"), ignored)) {
    throw file_error((folder / (stem + ".bin")).string(),
                     "safetensors (examples/convert/bin2safetensors.py makes them)",
                     "a pickle, which may run code when it is read");
  } else {
    throw file_error(folder.string(), "a file " + stem + ".safetensors, or its index", "none");
  }
}

inline void SafetensorsShards::open_index(const std::filesystem::path& folder) {
  const MappedFile text(source_);
  const auto tree =
      detail::LimitedJson::object({reinterpret_cast<const char*>(text.bytes().data()), text.bytes().size()}, source_);
  const auto map = tree.find("weight_map");
  if (map == tree.end() || !map->is_object()) throw file_error(source_, "an object 'weight_map'", "none");
  for (const auto& [name, file] : map->items()) {
    const std::string shard = file.is_string() ? file.get<std::string>() : "";
    // A name, and no path: an index must not reach out of its folder.
    if (shard.find_first_of(std::string("/\\:\0", 4)) != shard.npos || !shard.ends_with(".safetensors"))
      throw file_error(source_, "the name of a .safetensors file in the same folder for '" + name + "'", file.dump());
    const SafetensorsReader& reader = open(folder / shard);
    reader.at(name);
    tensors_[name] = &reader;
  }
  // What a shard has and the index does not name is there, too: who loads shard by shard, as transformers, reads it.
  decltype(tensors_) beyond;
  for_each_file([&](const std::string& file, const SafetensorsReader& reader) {
    for (const SafetensorsEntry& entry : reader.tensors())
      if (!has(entry.name) && !beyond.try_emplace(entry.name, &reader).second)
        throw file_error(source_, "the shard of '" + entry.name + "'", "none, and the tensor in two, such as " + file);
  });
  tensors_.merge(beyond);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
