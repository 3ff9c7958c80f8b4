// SPDX-License-Identifier: MIT
// PeftFields: the fields of an adapter_config.json, by name and type.
#pragma once

#include "mole/core/config.hpp"
#include "mole/io/limited_json.hpp"
#include "mole/io/peft/path_pattern.hpp"

#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A number for the modules that a regular expression names.
struct PeftPattern {
  PathPattern pattern;
  double value;
};

namespace detail {

/// Reads fields of a configuration, with errors that name file and field.
class PeftFields {
 public:
  using Tree = LimitedJson::Tree;

  PeftFields(const Tree& tree, const std::string& source) : tree_(tree), source_(source) {}

  /// Null if it is absent or null.
  const Tree* find(std::string_view name) const {
    const auto found = tree_.find(name);
    return found == tree_.end() || found->is_null() ? nullptr : &*found;
  }
  [[noreturn]] void wrong(std::string_view name, const std::string& expected, const Tree& found) const {
    std::string text = found.dump();
    if (text.size() > 60) text = text.substr(0, 60) + " ...";
    throw file_error(source_, expected + " for '" + std::string(name) + "'", text);
  }
  void read(std::string_view name, bool& to) const {
    if (const Tree* field = find(name)) to = field->is_boolean() ? field->get<bool>() : bool_of(name, *field);
  }
  void read(std::string_view name, double& to) const {
    if (const Tree* field = find(name)) to = number(name, *field);
  }
  void read(std::string_view name, Index& to) const {
    if (const Tree* field = find(name)) to = rank(name, *field);
  }
  void read(std::string_view name, std::string& to) const {
    if (const Tree* field = find(name)) to = text(name, *field);
  }
  /// A list of texts, or one text.
  void read(std::string_view name, std::vector<std::string>& to) const {
    const Tree* field = find(name);
    if (!field) return;
    if (field->is_string()) return to.push_back(text(name, *field));
    if (!field->is_array()) wrong(name, "a list of texts", *field);
    for (const Tree& element : *field) to.push_back(text(name, element));
  }
  /// Patterns together may take little more memory and time than texts of their length: "x{4000}" has 7 characters.
  void read(std::string_view name, std::vector<PeftPattern>& to, bool ranks) const {
    const Tree* field = find(name);
    if (!field) return;
    if (!field->is_object()) wrong(name, "an object", *field);
    std::size_t excess = 0;
    for (const auto& [key, value] : field->items()) try {
        to.push_back({PathPattern(key), ranks ? double(rank(name, value)) : number(name, value)});
        excess += to.back().pattern.excess();
        if (excess > most_steps)
          throw file_error(
              source_, "at most " + std::to_string(most_steps) + " steps of expressions in '" + std::string(name) + "'",
              "more, with '" + key.substr(0, 60) + "'");
      } catch (const Error& error) {
        if (error.code() == ErrorCode::file) throw;
        throw Error(ErrorCode::file, source_ + ": " + std::string(name) + ": " + error.what());
      }
  }
  /// Of an object of lists of `size` truth values: how many are true, by what comes before `step` in the key.
  std::map<std::string, Index, std::less<>> counts(std::string_view name, std::string_view step, Index size) const {
    std::map<std::string, Index, std::less<>> counts;
    const Tree* field = find(name);
    if (!field) return counts;
    if (!field->is_object()) wrong(name, "an object", *field);
    for (const auto& [key, list] : field->items()) {
      Index& count = counts[key.substr(0, key.rfind(step))];
      if (!list.is_array() || Index(list.size()) != size)
        wrong(name, "lists of " + std::to_string(size) + " truth values, one for each rank,", list);
      for (const Tree& element : list) {
        if (!element.is_boolean()) wrong(name, "truth values", element);
        count += element.get<bool>();
      }
    }
    return counts;
  }
  bool is_set(std::string_view name) const {
    const Tree* field = find(name);
    return field && *field != false && !((field->is_array() || field->is_object()) && field->empty());
  }

  std::string text(std::string_view name, const Tree& field) const {
    if (!field.is_string()) wrong(name, "a text", field);
    std::string text = field.get<std::string>();
    if (text.find('\0') != text.npos) wrong(name, "a text without a character 0", field);
    return text;
  }

 private:
  static constexpr std::size_t most_steps = 4 * PathPattern::max_steps;

  bool bool_of(std::string_view name, const Tree& field) const { wrong(name, "true or false", field); }
  double number(std::string_view name, const Tree& field) const {
    if (!field.is_number() || !std::isfinite(field.get<double>())) wrong(name, "a number", field);
    return field.get<double>();
  }
  Index rank(std::string_view name, const Tree& field) const {
    if (!field.is_number_integer() || field.get<double>() < 1 || field.get<double>() > 1 << 30)
      wrong(name, "a whole number of at least 1", field);
    return field.get<Index>();
  }

  const Tree& tree_;
  const std::string& source_;
};

}  // namespace detail

}  // namespace mole

#include "mole/core/macros_on.hpp"
