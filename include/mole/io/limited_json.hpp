// SPDX-License-Identifier: MIT
// LimitedJson: a parser for JSON from strangers, with limits and without duplicate keys.
#pragma once

#include "mole/io/file_error.hpp"

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

#include <nlohmann/json.hpp>

namespace mole::detail {

/// Receives the JSON piece by piece (nlohmann's SAX interface) and builds a tree in the order of the text.
class LimitedJson {
 public:
  using Tree = nlohmann::ordered_json;
  static constexpr std::size_t max_bytes = std::size_t(1) << 26, max_depth = 32;

  /// The object that `text` is. Throws Error(file), naming `source`, for anything but one JSON object in UTF-8 of at
  /// most max_bytes, nested at most max_depth deep, with each key of an object once.  O(n log n), memory O(n).
  static Tree object(std::string_view text, const std::string& source) {
    if (text.size() > max_bytes)
      throw file_error(source, "at most " + std::to_string(max_bytes) + " bytes of JSON", std::to_string(text.size()));
    if (text.find('\0') != text.npos) throw file_error(source, "JSON text", "a byte 0");  // the parser's end of input
    LimitedJson json(source);
    nlohmann::json::sax_parse(text.begin(), text.end(), &json);
    if (!json.root_.is_object()) throw file_error(source, "a JSON object", json.root_.type_name());
    return std::move(json.root_);
  }

  bool null() { return put(nullptr); }
  bool boolean(bool value) { return put(value); }
  bool number_integer(std::int64_t value) { return put(value); }
  bool number_unsigned(std::uint64_t value) { return put(value); }
  bool number_float(double value, const std::string&) { return put(value); }
  bool string(std::string& value) { return put(std::move(value)); }
  bool binary(std::vector<std::uint8_t>&) { return false; }
  bool start_object(std::size_t) { return open(Tree::object()); }
  bool start_array(std::size_t) { return open(Tree::array()); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool key(std::string& key) {
    if (!open_.back().keys.insert(key).second)
      throw file_error(source_, "each key of an object once", "'" + key + "' twice");
    key_ = key;
    return true;
  }
  bool parse_error(std::size_t position, const std::string& token, const nlohmann::json::exception&) {
    throw file_error(source_, "a JSON object", "'" + token + "' at its byte " + std::to_string(position));
  }

 private:
  struct Open {
    Tree* tree;
    std::set<std::string> keys;
  };

  explicit LimitedJson(const std::string& source) : source_(source) {}

  bool put(Tree value) {
    place(std::move(value));
    return true;
  }
  bool open(Tree empty) {
    if (open_.size() == max_depth)
      throw file_error(source_, "JSON of at most " + std::to_string(max_depth) + " levels", "more");
    open_.push_back({place(std::move(empty)), {}});
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }
  /// At the end of what is open: an ordered_json would look for the key first, in linear time.
  Tree* place(Tree value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Tree& in = *open_.back().tree;
    if (in.is_array()) {
      auto& array = in.get_ref<Tree::array_t&>();
      array.push_back(std::move(value));
      return &array.back();
    }
    auto& object = in.get_ref<Tree::object_t&>();
    object.push_back({key_, std::move(value)});
    return &object.back().second;
  }

  const std::string& source_;
  Tree root_;
  std::vector<Open> open_;
  std::string key_;
};

}  // namespace mole::detail

#include "mole/core/macros_on.hpp"
