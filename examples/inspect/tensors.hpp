// SPDX-License-Identifier: MIT
// TensorList: the tensors of a file, each looked at once.
#pragma once

#include "mole/io/gguf/gguf_entry.hpp"
#include "mole/io/safetensors_shards.hpp"
#include "mole/io/tensor_check.hpp"

#include <cmath>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace inspect {

class TensorList {
 public:
  using Json = nlohmann::ordered_json;

  void add(const mole::SafetensorsShards& shards) {
    for (const auto& [name, reader] : shards.tensors()) {
      const mole::SafetensorsEntry& entry = reader->at(name);
      add(entry, std::string(mole::name_of(entry.dtype)));
    }
  }
  template <class Entry>
  void add(const Entry& entry, const std::string& type) {
    const mole::TensorCheck check = mole::check_tensor(entry);
    Json row{{"name", entry.name}, {"type", type}, {"shape", entry.shape}};
    if (check.numbers) row.update({{"norm", check.norm}, {"largest", check.largest}});
    if (check.not_finite > 0) {
      row["not_finite"] = check.not_finite;
      not_finite_.push_back(entry.name);
    }
    if (check.numbers && check.not_finite == 0 && check.largest == 0) zero_.insert(entry.name);
    bytes_ += entry.bytes.size();
    std::uint64_t numbers = 1;
    for (const mole::Index size : entry.shape) numbers *= std::uint64_t(size);
    numbers_ += numbers;
    ++types_[type];
    rows_.push_back(std::move(row));
  }

  Json summary() const {
    Json types = Json::object();
    for (const auto& [type, count] : types_) types[type] = count;
    return {{"tensors", rows_.size()}, {"numbers", numbers_}, {"bytes", bytes_}, {"types", types}};
  }
  const Json& rows() const { return rows_; }
  const std::vector<std::string>& not_finite() const { return not_finite_; }
  /// Of numbers that are all 0.
  bool zero(const std::string& name) const { return zero_.contains(name); }
  const std::map<std::string, int>& types() const { return types_; }

 private:
  Json rows_ = Json::array();
  std::vector<std::string> not_finite_;
  std::set<std::string> zero_;
  std::map<std::string, int> types_;
  std::uint64_t bytes_ = 0, numbers_ = 0;
};

}  // namespace inspect
