// SPDX-License-Identifier: MIT
// LayerFieldsWriter, LayerFieldsReader: the options of a policy in the description of a layer, by name.
#pragma once

#include "mole/core/dropout.hpp"
#include "mole/io/file_error.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

#include <nlohmann/json.hpp>

namespace mole {

/// What describes a layer, as JSON: numbers keep all their bits.
class LayerFieldsWriter {
 public:
  void set(const std::string& name, Index number) { json_[name] = std::int64_t(number); }
  void set(const std::string& name, std::uint64_t number) { json_[name] = number; }
  void set(const std::string& name, double number) { json_[name] = number; }
  void set(const std::string& name, bool on) { json_[name] = on; }
  void set(const std::string& name, std::string_view text) { json_[name] = std::string(text); }
  void set(const std::string& name, const char* text) { json_[name] = text; }
  void set(const std::string& name, const std::vector<Index>& numbers) { json_[name] = numbers; }
  void set(const std::string& name, const Dropout& dropout) {
    json_[name] = dropout.rate;
    json_[name + "_stream"] = dropout.stream;
  }
  void set(const std::string& name, const LayerFieldsWriter& part) { json_[name] = part.json_; }

  std::string text() const { return json_.dump(); }

 private:
  nlohmann::ordered_json json_ = nlohmann::ordered_json::object();
};

/// The same, as it is read from a file by somebody else. Every call throws Error(file), naming the file, the layer, the
/// field, what was expected and what was found, for a field that is not there or of another kind.
///
/// A size is bounded by what the file holds, so that a description cannot ask for more memory than its file has.
class LayerFieldsReader {
 public:
  using Json = nlohmann::ordered_json;

  /// `source` names file and layer; the file holds `numbers` numbers; in and out are those of the base.
  LayerFieldsReader(Json json, std::string source, Index numbers, Index in, Index out)
      : json_(std::move(json)), source_(std::move(source)), numbers_(numbers), in_(in), out_(out) {}

  /// Of the layer.
  Index in() const { return in_; }
  Index out() const { return out_; }

  Index integer(const std::string& name) const {
    const Json& value = at(name);
    constexpr std::int64_t largest = std::numeric_limits<Index>::max();
    if (!value.is_number_integer() ||
        (value.is_number_unsigned() && value.get<std::uint64_t>() > std::uint64_t(largest)))
      throw error("an integer", name, value.dump());
    return Index(value.get<std::int64_t>());
  }
  /// From 0 to so many that the file may hold `width` numbers for each.
  Index size(const std::string& name, Index width) const { return bounded(integer(name), name, width); }
  /// Sizes whose sum is bounded in the same way.
  std::vector<Index> sizes(const std::string& name, Index width) const {
    const Json& value = at(name);
    if (!value.is_array()) throw error("a list of integers", name, value.type_name());
    std::vector<Index> sizes;
    Index sum = 0;
    for (const Json& size : value) {
      if (!size.is_number_integer()) throw error("a list of integers", name, size.dump());
      sizes.push_back(bounded(Index(size.get<std::int64_t>()), name, width));
      sum = bounded(sum + sizes.back(), name, width);
    }
    return sizes;
  }
  std::uint64_t natural(const std::string& name) const {
    const Json& value = at(name);
    if (!value.is_number_unsigned()) throw error("an integer of at least 0", name, value.dump());
    return value.get<std::uint64_t>();
  }
  double number(const std::string& name) const {
    const Json& value = at(name);
    if (!value.is_number()) throw error("a number", name, value.dump());
    return value.get<double>();
  }
  bool flag(const std::string& name) const {
    const Json& value = at(name);
    if (!value.is_boolean()) throw error("true or false", name, value.dump());
    return value.get<bool>();
  }
  std::string text(const std::string& name) const {
    const Json& value = at(name);
    if (!value.is_string()) throw error("a text", name, value.dump());
    return value.get<std::string>();
  }
  Dropout dropout(const std::string& name) const { return {.rate = number(name), .stream = natural(name + "_stream")}; }
  /// The fields of a part.
  LayerFieldsReader part(const std::string& name) const { return part(name, in_, out_); }
  /// ... of a map of other sizes.
  LayerFieldsReader part(const std::string& name, Index in, Index out) const {
    const Json& value = at(name);
    if (!value.is_object()) throw error("an object", name, value.dump());
    return {value, source_ + ": " + name, numbers_, in, out};
  }

  /// Throws for a field that was not asked for: it might change what the layer computes.
  void end() const {
    for (const auto& [name, value] : json_.items())
      if (!used_.contains(name)) throw error("no field of that name", name, value.dump());
  }

  Error error(const std::string& expected, const std::string& field, const std::string& found) const {
    return file_error(source_, expected + " for '" + field + "'", found.substr(0, 100));
  }

 private:
  const Json& at(const std::string& name) const {
    const auto found = json_.find(name);
    if (found == json_.end()) throw file_error(source_, "a field '" + name + "'", "none of that name");
    used_.insert(name);
    return *found;
  }
  Index bounded(Index size, const std::string& name, Index width) const {
    const Index largest = numbers_ / (width > 0 ? width : 1);
    if (size < 0 || size > largest)
      throw error("from 0 to " + std::to_string(largest) + ", for which the file has numbers,", name,
                  std::to_string(size));
    return size;
  }

  Json json_;
  std::string source_;
  Index numbers_, in_, out_;
  mutable std::set<std::string> used_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
