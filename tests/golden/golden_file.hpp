// SPDX-License-Identifier: MIT
// GoldenFile: the options and tensors of a golden file, in memory, where a test of the runner can change them.
#pragma once

#include "mole/io/safetensors_reader.hpp"

#include <algorithm>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace golden {

using mole::Index;
using mole::Matrix;
using mole::View;

struct GoldenFile {
  std::map<std::string, std::string> options;                 ///< the metadata
  std::map<std::string, Matrix<double>> numbers;              ///< F32 and F64, both exact
  std::map<std::string, std::vector<std::int64_t>> integers;  ///< I64, row by row

  GoldenFile() = default;
  explicit GoldenFile(const mole::SafetensorsReader& reader) : options(reader.metadata()) {
    for (const auto& entry : reader.tensors())
      if (entry.dtype == mole::Dtype::f32 || entry.dtype == mole::Dtype::f64)
        numbers[entry.name] = reader.matrix<double>(entry.name);
      else
        integers[entry.name] = reader.integers(entry.name);
  }

  bool has(const std::string& name) const { return numbers.contains(name) || integers.contains(name); }
  void remove(const std::string& name) { numbers.erase(name), integers.erase(name); }
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& [name, tensor] : numbers) all.push_back(name);
    for (const auto& [name, tensor] : integers) all.push_back(name);
    return all;
  }

  /// Says where a file comes from and how it was made; nothing is computed from it.
  static bool describes(const std::string& option) {
    static const std::vector<std::string> descriptions = {"case", "commit", "dtype",   "edge",   "layout", "method",
                                                          "note", "seed",   "min_gap", "source", "status", "stub"};
    return std::ranges::find(descriptions, option) != descriptions.end();
  }
};

/// A gradient that the file wants computed; grad_y and the like are what it is computed from.
inline bool is_gradient(const std::string& name) {
  return name.starts_with("grad.") || name.starts_with("grad_loss.") || name.starts_with("grad_x");
}

/// A result. What is not one is a parameter or an input.
inline bool is_answer(const std::string& name) {
  return is_gradient(name) || name == "y" || name.starts_with("y.") || name.starts_with("loss.");
}

}  // namespace golden
