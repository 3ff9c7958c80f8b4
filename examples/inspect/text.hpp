// SPDX-License-Identifier: MIT
// text(): a description for people.
#pragma once

#include "training/printable.hpp"

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace inspect {

namespace detail {
using Json = nlohmann::ordered_json;

inline std::string word(const Json& value) {
  if (value.is_string()) return training::printable(value.get_ref<const std::string&>());
  if (value.is_number_float()) {
    char digits[32];
    std::snprintf(digits, sizeof digits, "%.6g", value.get<double>());
    return digits;
  }
  if (value.is_null()) return "-";
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_object()) {
    std::string line;
    for (const auto& [key, each] : value.items())
      line += (line.empty() ? "" : ", ") + training::printable(key) + " " + word(each);
    return line;
  }
  if (!value.is_array()) return value.dump();
  std::string line;
  for (const Json& each : value) line += (line.empty() ? "" : ", ") + word(each);
  return line;
}

/// Rows of objects, with a column for each key of any.
inline std::string table(const Json& rows) {
  std::vector<std::string> keys;
  for (const Json& row : rows)
    for (const auto& [key, value] : row.items())
      if (std::ranges::find(keys, key) == keys.end()) keys.push_back(key);
  std::vector<std::size_t> widths;
  for (const std::string& key : keys) {
    std::size_t width = key.size();
    for (const Json& row : rows)
      if (row.contains(key)) width = std::max(width, word(row[key]).size());
    widths.push_back(width + 2);
  }
  std::string text;
  const auto line = [&](auto cell_of) {
    text += "  ";
    for (std::size_t k = 0; k < keys.size(); ++k) {
      std::string cell = cell_of(keys[k]);
      if (k + 1 < keys.size()) cell.resize(widths[k], ' ');
      text += cell;
    }
    text.erase(text.find_last_not_of(' ') + 1);
    text += '\n';
  };
  line([](const std::string& key) { return key; });
  for (const Json& row : rows) line([&](const std::string& key) { return row.contains(key) ? word(row[key]) : ""; });
  return text;
}
}  // namespace detail

/// A line for each field, tables for lists of objects. The list of all tensors is left out where there are modules.
inline std::string text(const detail::Json& json) {
  std::string text;
  for (const auto& [key, value] : json.items()) {
    if (key == "tensor_list" && (json.contains("modules") || json.contains("adapters"))) continue;
    if (key == "adapters" && value.is_array()) {
      for (const detail::Json& adapter : value) text += "\n" + inspect::text(adapter);
    } else if (value.is_array() && !value.empty() && value.front().is_object()) {
      text += key + ":\n" + detail::table(value);
    } else if (key == "unusual") {
      text += value.empty() ? "nothing unusual\n" : "unusual:\n";
      for (const detail::Json& line : value) text += "  " + detail::word(line) + "\n";
    } else {
      text += key + ": " + detail::word(value) + "\n";
    }
  }
  return text;
}

}  // namespace inspect
