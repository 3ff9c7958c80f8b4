// SPDX-License-Identifier: MIT
// SafetensorsJson: a strict parser for the JSON of a safetensors header.
#pragma once

#include "mole/io/file_error.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "mole/core/macros_off.hpp"

#include <nlohmann/json.hpp>

namespace mole::detail {

/// A tensor as the JSON describes it, unchecked.
struct SafetensorsClaim {
  std::string name;
  std::optional<std::string> dtype;
  std::optional<std::vector<std::uint64_t>> shape, data_offsets;
};

/// Receives the JSON piece by piece (nlohmann's SAX interface). A tree of values would hide duplicate keys and would be
/// built for any JSON at all; here the first misplaced piece ends the parse.
class SafetensorsJson {
 public:
  explicit SafetensorsJson(const std::string& source) : source_(source) {}

  std::map<std::string, std::string> metadata;
  std::vector<SafetensorsClaim> claims;

  bool start_object(std::size_t) {
    if (place_ == Place::outside) return enter(Place::root);
    if (place_ != Place::root) wrong("an object");
    if (key_ == "__metadata__") return enter(Place::metadata);
    claims.push_back({key_, {}, {}, {}});
    return enter(Place::tensor);
  }
  bool end_object() {
    if (place_ == Place::tensor) require_complete(claims.back());
    return enter(place_ == Place::root ? Place::outside : Place::root);
  }
  bool start_array(std::size_t) {
    if (place_ != Place::tensor || key_ == "dtype") wrong("an array");
    list().emplace();
    return enter(Place::list);
  }
  bool end_array() { return enter(Place::tensor); }
  bool key(std::string& key) {
    key_ = key;
    const bool first = place_ == Place::root       ? names_.insert(key).second
                       : place_ == Place::metadata ? !metadata.contains(key)
                                                   : is_first_field(key);
    if (!first) fail("each key once in " + place(), "'" + key + "' twice");
    return true;
  }
  bool string(std::string& value) {
    if (place_ == Place::metadata)
      metadata[key_] = value;
    else if (place_ == Place::tensor && key_ == "dtype")
      claims.back().dtype = value;
    else
      wrong("a string");
    return true;
  }
  bool number_unsigned(std::uint64_t value) {
    if (place_ != Place::list) wrong("a number");
    list()->push_back(value);
    return true;
  }
  bool number_integer(std::int64_t) { wrong("a negative number"); }
  bool number_float(double, const std::string& text) { wrong("the number " + text); }
  bool null() { wrong("null"); }
  bool boolean(bool) { wrong("a truth value"); }
  bool binary(std::vector<std::uint8_t>&) { wrong("binary data"); }
  bool parse_error(std::size_t position, const std::string& token, const nlohmann::json::exception&) {
    fail("a JSON object as header", "'" + token + "' at its byte " + std::to_string(position));
  }

 private:
  enum class Place { outside, root, metadata, tensor, list };

  bool enter(Place place) {
    place_ = place;
    return true;
  }
  std::optional<std::vector<std::uint64_t>>& list() {
    return key_ == "shape" ? claims.back().shape : claims.back().data_offsets;
  }
  bool is_first_field(const std::string& field) const {
    const SafetensorsClaim& claim = claims.back();
    if (field == "dtype") return !claim.dtype;
    if (field == "shape") return !claim.shape;
    if (field == "data_offsets") return !claim.data_offsets;
    fail("dtype, shape and data_offsets of '" + claim.name + "'", "'" + field + "'");
  }
  void require_complete(const SafetensorsClaim& claim) const {
    const char* missing = !claim.dtype ? "dtype" : !claim.shape ? "shape" : !claim.data_offsets ? "data_offsets" : "";
    if (*missing) fail("dtype, shape and data_offsets of '" + claim.name + "'", std::string("no ") + missing);
    if (claim.data_offsets->size() != 2)
      fail("2 data_offsets of '" + claim.name + "'", std::to_string(claim.data_offsets->size()));
  }

  std::string place() const {
    return place_ == Place::metadata ? "__metadata__"
           : place_ == Place::tensor ? "'" + claims.back().name + "'"
                                     : "the header";
  }
  [[noreturn]] void wrong(const std::string& found) const {
    switch (place_) {
      case Place::outside:
        fail("a JSON object as header", found);
      case Place::root:
        fail("an object for '" + key_ + "'", found);
      case Place::metadata:
        fail("a string for '" + key_ + "' in __metadata__", found);
      case Place::tensor:
        fail((key_ == "dtype" ? "a string for " : "an array for ") + key_ + " of " + place(), found);
      case Place::list:
        break;
    }
    fail("64-bit numbers of at least 0 in " + key_ + " of '" + claims.back().name + "'", found);
  }
  [[noreturn]] void fail(const std::string& expected, const std::string& found) const {
    throw file_error(source_, expected, found);
  }

  const std::string& source_;
  Place place_ = Place::outside;
  std::string key_;
  std::set<std::string> names_;
};

}  // namespace mole::detail

#include "mole/core/macros_on.hpp"
