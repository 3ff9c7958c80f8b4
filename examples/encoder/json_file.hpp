// SPDX-License-Identifier: MIT
// JsonFile: a configuration on disk, with errors that name the file and the key.
#pragma once

#include "mole/core/config.hpp"

#include <nlohmann/json.hpp>

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

namespace encoder {

class JsonFile {
 public:
  explicit JsonFile(std::filesystem::path path) : path_(std::move(path)) {
    std::ifstream stream(path_);
    tree_ = nlohmann::json::parse(stream, nullptr, false);
    if (!tree_.is_object()) fail("a JSON object", stream.is_open() ? "something else" : "no such file");
  }

  const nlohmann::json& tree() const { return tree_; }

  mole::Index number(const std::string& key) const {
    const auto found = tree_.find(key);
    if (found == tree_.end() || !found->is_number_integer()) fail("a whole number '" + key + "'", text(key));
    return found->get<mole::Index>();
  }
  double real(const std::string& key) const {
    const auto found = tree_.find(key);
    if (found == tree_.end() || !found->is_number()) fail("a number '" + key + "'", text(key));
    return found->get<double>();
  }
  /// An absent key stands for what is expected, as transformers has it.
  void expect(const std::string& key, const std::string& value) const {
    if (tree_.contains(key) && tree_.at(key) != value) fail("'" + key + "' of '" + value + "'", text(key));
  }

  [[noreturn]] void fail(const std::string& expected, const std::string& found) const {
    throw std::runtime_error(path_.string() + ": expected " + expected + ", found " + found);
  }

 private:
  std::string text(const std::string& key) const { return tree_.contains(key) ? tree_.at(key).dump() : "none"; }

  std::filesystem::path path_;
  nlohmann::json tree_;
};

}  // namespace encoder
