// SPDX-License-Identifier: MIT
// GgufReader: reads the tensors and the metadata of a GGUF file.
#pragma once

#include "mole/core/checked_size.hpp"
#include "mole/core/matrix.hpp"
#include "mole/io/file_cursor.hpp"
#include "mole/io/file_error.hpp"
#include "mole/io/gguf/gguf_entry.hpp"
#include "mole/io/mapped_file.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <concepts>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// An array of the metadata: its number of items.
struct GgufArray {
  std::uint64_t items = 0;
};

/// A value of the metadata. Integers of any width are std::int64_t, but for an unsigned one beyond it, which is a
/// double.
using GgufValue = std::variant<std::int64_t, double, bool, std::string, GgufArray>;

/// The tensors and the metadata of a file of version 2 or 3, little endian.
///
/// As a matrix, shape [n] is 1 x n, [r, c] is r x c, [n, r, c] is n x (r c). Opening checks every length, and that no
/// tensors overlap: O(header + n log n) for n tensors.
/// Entries live as long as the reader, or as the bytes that were passed to `from_bytes`. Move-only. Throws Error(file)
/// for a broken file, a missing tensor or key, a type that the call cannot return.
/// Source: ggml, docs/gguf.md and gguf.cpp.
class GgufReader {
 public:
  explicit GgufReader(const std::filesystem::path& path) : source_(path.string()), file_(std::in_place, path) {
    parse(file_->bytes());
  }
  /// Reads `bytes`, which stay the caller's; `source` is their name in messages.
  static GgufReader from_bytes(std::span<const std::byte> bytes, std::string source) {
    return GgufReader(bytes, std::move(source));
  }

  const std::string& source() const { return source_; }
  const std::map<std::string, GgufValue, std::less<>>& metadata() const { return metadata_; }
  /// All tensors, in the order of the file's list.
  std::span<const GgufEntry> tensors() const { return tensors_; }

  bool has(std::string_view name) const { return by_name_.contains(name); }
  const GgufEntry& at(std::string_view name) const {
    const auto found = by_name_.find(name);
    if (found != by_name_.end()) return tensors_[found->second];
    throw file_error(source_, "a tensor named '" + std::string(name) + "'",
                     "none of that name among " + std::to_string(tensors_.size()));
  }

  /// A copy of F32, F16, BF16, F64, Q8_0 or Q4_0 as float or double; other types are refused by name.  O(size)
  template <std::floating_point T>
  Matrix<T> matrix(std::string_view name) const;

  /// The text or number under a key. Throws Error(file) unless it is there and of that kind.
  template <class Value>
  const Value& value(std::string_view key) const {
    const auto found = metadata_.find(key);
    if (found == metadata_.end()) throw file_error(source_, "metadata '" + std::string(key) + "'", "none");
    if (const Value* const value = std::get_if<Value>(&found->second)) return *value;
    throw file_error(source_, kind_of(GgufValue(Value())) + " for '" + std::string(key) + "'", kind_of(found->second));
  }

 private:
  using Cursor = detail::FileCursor;
  /// A tensor whose bytes are not looked up yet.
  struct Claim {
    GgufEntry entry;
    std::uint64_t offset, size;
  };

  GgufReader(std::span<const std::byte> bytes, std::string source) : source_(std::move(source)) { parse(bytes); }

  void parse(std::span<const std::byte> file);
  GgufValue read_value(Cursor& cursor, std::uint32_t kind, const std::string& key, int depth = 0) const;
  Claim read_claim(Cursor& cursor) const;
  void require_apart() const;
  std::uint64_t alignment() const;

  static std::string kind_of(const GgufValue& value) {
    constexpr std::array<const char*, 5> kinds{"an integer", "a real number", "a truth value", "a text", "an array"};
    return kinds[value.index()];
  }

  std::string source_;
  std::optional<MappedFile> file_;
  std::map<std::string, GgufValue, std::less<>> metadata_;
  std::vector<GgufEntry> tensors_;
  std::map<std::string, std::size_t, std::less<>> by_name_;
};

inline void GgufReader::parse(std::span<const std::byte> file) {
  static_assert(std::endian::native == std::endian::little, "GGUF: expected a little-endian machine");
  Cursor cursor(file, source_);
  const auto magic = cursor.bytes(4, "the word GGUF");
  if (std::memcmp(magic.data(), "GGUF", 4) != 0) throw file_error(source_, "a file that begins with GGUF", "another");
  const auto version = cursor.number<std::uint32_t>("the version");
  if (version != 2 && version != 3) throw file_error(source_, "version 2 or 3, little endian", std::to_string(version));
  const auto tensors = cursor.number<std::uint64_t>("the number of tensors");
  const auto keys = cursor.number<std::uint64_t>("the number of keys");

  // A key takes 13 bytes at least and a tensor 24, so neither count can ask for more memory than the file has.
  for (std::uint64_t k = 0; k < keys; ++k) {
    std::string key = cursor.text("a key");
    const auto kind = cursor.number<std::uint32_t>("the kind of '" + key + "'");
    GgufValue value = read_value(cursor, kind, key);
    if (const auto [place, first] = metadata_.emplace(std::move(key), std::move(value)); !first)
      throw file_error(source_, "each key once", "'" + place->first + "' twice");
  }

  std::vector<Claim> claims;
  for (std::uint64_t t = 0; t < tensors; ++t) {
    claims.push_back(read_claim(cursor));
    if (const auto [place, first] = by_name_.emplace(claims.back().entry.name, claims.size() - 1); !first)
      throw file_error(source_, "each tensor once", "'" + place->first + "' twice");
  }
  if (claims.empty()) return;
  cursor.bytes((alignment() - cursor.at() % alignment()) % alignment(), "padding before the tensors");
  const auto data = file.subspan(cursor.at());
  for (auto& [entry, offset, size] : claims) {
    if (offset % alignment() != 0)
      throw file_error(source_, "'" + entry.name + "' at a multiple of " + std::to_string(alignment()) + " bytes",
                       std::to_string(offset));
    if (offset > data.size() || size > data.size() - offset)
      throw file_error(source_,
                       std::to_string(size) + " bytes of '" + entry.name + "' from byte " + std::to_string(offset),
                       std::to_string(data.size()) + " bytes of tensors");
    entry.bytes = data.subspan(std::size_t(offset), std::size_t(size));
    tensors_.push_back(std::move(entry));
  }
  require_apart();
}

/// What all tensors decode to is then bounded by the size of the file.
inline void GgufReader::require_apart() const {
  std::vector<const GgufEntry*> ordered;
  for (const GgufEntry& entry : tensors_)
    if (!entry.bytes.empty()) ordered.push_back(&entry);
  std::ranges::sort(ordered, std::less{}, [](const GgufEntry* entry) { return entry->bytes.data(); });
  for (std::size_t i = 1; i < ordered.size(); ++i) {
    const auto shared = ordered[i - 1]->bytes.data() + ordered[i - 1]->bytes.size() - ordered[i]->bytes.data();
    if (shared > 0)
      throw file_error(source_, "'" + ordered[i]->name + "' behind '" + ordered[i - 1]->name + "'",
                       "an overlap of " + std::to_string(shared) + " bytes");
  }
}

inline std::uint64_t GgufReader::alignment() const {
  if (!metadata_.contains("general.alignment")) return 32;
  const std::int64_t alignment = value<std::int64_t>("general.alignment");
  if (alignment <= 0 || alignment % 8 != 0 || alignment > 1 << 20)
    throw file_error(source_, "an alignment that is a multiple of 8", std::to_string(alignment));
  return std::uint64_t(alignment);
}

inline GgufValue GgufReader::read_value(Cursor& cursor, std::uint32_t kind, const std::string& key, int depth) const {
  const std::string what = "the value of '" + key + "'";
  switch (kind) {
    case 0:
      return std::int64_t(cursor.number<std::uint8_t>(what));
    case 1:
      return std::int64_t(cursor.number<std::int8_t>(what));
    case 2:
      return std::int64_t(cursor.number<std::uint16_t>(what));
    case 3:
      return std::int64_t(cursor.number<std::int16_t>(what));
    case 4:
      return std::int64_t(cursor.number<std::uint32_t>(what));
    case 5:
      return std::int64_t(cursor.number<std::int32_t>(what));
    case 6:
      return double(cursor.number<float>(what));
    case 7:
      return cursor.number<std::uint8_t>(what) != 0;
    case 8:
      return cursor.text(what);
    case 9: {
      if (depth == 4) throw file_error(source_, "arrays in arrays of at most 4 levels in '" + key + "'", "more");
      const auto of = cursor.number<std::uint32_t>(what);
      const auto items = cursor.number<std::uint64_t>(what);
      for (std::uint64_t i = 0; i < items; ++i) read_value(cursor, of, key, depth + 1);  // each takes a byte at least
      return GgufArray{items};
    }
    case 10: {
      const auto natural = cursor.number<std::uint64_t>(what);
      if (natural > std::uint64_t(std::numeric_limits<std::int64_t>::max())) return double(natural);
      return std::int64_t(natural);
    }
    case 11:
      return cursor.number<std::int64_t>(what);
    case 12:
      return cursor.number<double>(what);
    default:
      throw file_error(source_, "a kind of value from 0 to 12 for '" + key + "'", std::to_string(kind));
  }
}

inline GgufReader::Claim GgufReader::read_claim(Cursor& cursor) const {
  Claim claim{{cursor.text("the name of a tensor"), GgufType::f32, {}, {}}, 0, 0};
  const std::string of_name = " of '" + claim.entry.name + "'";
  const auto dimensions = cursor.number<std::uint32_t>("the number of dimensions" + of_name);
  if (dimensions == 0 || dimensions > 4)
    throw file_error(source_, "1 to 4 dimensions" + of_name, std::to_string(dimensions));
  constexpr std::uint64_t most = std::uint64_t(std::numeric_limits<Index>::max());
  std::uint64_t elements = 1;
  for (std::uint32_t d = 0; d < dimensions; ++d) {
    const auto size = cursor.number<std::uint64_t>("a dimension" + of_name);
    if (size > most || (size != 0 && elements > most / size))
      throw file_error(source_, "fewer than 2^63 elements" + of_name, "a dimension of " + std::to_string(size));
    elements *= size;
    claim.entry.shape.insert(claim.entry.shape.begin(), Index(size));
  }
  const auto number = cursor.number<std::uint32_t>("the type" + of_name);
  const auto type = detail::gguf_type_row(number);
  if (!type) throw file_error(source_, "a known type" + of_name, std::to_string(number));
  claim.entry.type = GgufType(number);
  const auto block = std::uint64_t(type->elements), bytes = std::uint64_t(type->bytes);
  if (std::uint64_t(claim.entry.shape.back()) % block != 0)
    throw file_error(source_, "rows of whole blocks of " + std::to_string(block) + of_name,
                     std::to_string(claim.entry.shape.back()) + " elements");
  if (elements / block > most / bytes)
    throw file_error(source_, "fewer than 2^63 bytes" + of_name, std::to_string(elements) + " elements");
  claim.size = elements / block * bytes;
  claim.offset = cursor.number<std::uint64_t>("the offset" + of_name);
  return claim;
}

template <std::floating_point T>
Matrix<T> GgufReader::matrix(std::string_view name) const {
  const GgufEntry& entry = at(name);
  Index cols = 1;
  for (std::size_t d = entry.shape.size() < 2 ? 0 : 1; d < entry.shape.size(); ++d)
    cols = checked_product("GGUF: columns", cols, entry.shape[d]);
  Matrix<T> matrix(entry.shape.size() < 2 ? 1 : entry.shape[0], cols);
  T* to = matrix.data();
  detail::for_each_gguf_number(entry, source_, [&](auto number) { *to++ = T(number); });
  return matrix;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
