// SPDX-License-Identifier: MIT
// SafetensorsWriter: writes tensors as a safetensors file.
#pragma once

#include "mole/core/checked_size.hpp"
#include "mole/core/view.hpp"
#include "mole/io/dtype.hpp"
#include "mole/io/replace_file.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <map>
#include <ostream>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

#include <nlohmann/json.hpp>

namespace mole {

/// Collects tensors and metadata, then writes them at once.
///
/// Elements are copied by add, so temporaries may be passed and later changes have no effect. Tensors are ordered by
/// size of element (larger first), then name, and the header is padded to a multiple of 8, so every tensor is aligned;
/// equal content gives equal bytes, in whatever order it was added.
/// Throws Error(option) for a name that is given twice, reserved or not UTF-8, Error(file) when writing fails.
class SafetensorsWriter {
 public:
  /// Shape [rows, cols].
  void add(std::string name, View<const float> matrix) { add_matrix(std::move(name), matrix); }
  void add(std::string name, View<const double> matrix) { add_matrix(std::move(name), matrix); }
  /// Shape [size].
  void add_vector(std::string name, std::span<const float> vector) { add_row(std::move(name), vector); }
  void add_vector(std::string name, std::span<const double> vector) { add_row(std::move(name), vector); }
  void add_integers(std::string name, std::span<const std::int64_t> integers) { add_row(std::move(name), integers); }
  void add_integers(std::string name, std::span<const std::int32_t> integers) { add_row(std::move(name), integers); }
  void add_integers(std::string name, std::span<const std::uint8_t> integers) { add_row(std::move(name), integers); }

  /// Elements of any dtype, row by row. Throws Error(shape) unless there are as many bytes as shape and dtype say.
  void add_bytes(std::string name, Dtype dtype, std::vector<Index> shape, std::span<const std::byte> bytes);

  /// A later value of the same key replaces the earlier one.
  void set_metadata(std::string key, std::string value) {
    require_utf8(key);
    require_utf8(value);
    metadata_[std::move(key)] = std::move(value);
  }

  /// Replaces `path` by the whole file or, on failure, leaves it unchanged; see replace_file.  O(size)
  void write(const std::filesystem::path& path) const {
    with_parts([&](auto parts) { replace_file(path, parts); });
  }
  /// Appends the bytes of the file to a stream, of an archive of the host's, say. Throws Error(file) when it fails.
  void write(std::ostream& stream) const;
  /// The bytes of the file.
  std::vector<std::byte> bytes() const;

 private:
  struct Tensor {
    Dtype dtype;
    std::vector<Index> shape;
    std::vector<std::byte> bytes;
  };
  using Named = std::map<std::string, Tensor>::value_type;

  template <class T>
  void add_matrix(std::string name, View<const T> matrix) {
    Tensor& tensor = insert(std::move(name), {dtype_of<T>(), {matrix.rows(), matrix.cols()}, {}});
    for (Index r = 0; r < matrix.rows(); ++r) append(tensor, matrix.row(r));
  }
  template <class T>
  void add_row(std::string name, std::span<const T> row) {
    append(insert(std::move(name), {dtype_of<T>(), {Index(row.size())}, {}}), row);
  }
  template <class T>
  static void append(Tensor& tensor, std::span<const T> elements) {
    const std::span<const std::byte> bytes = std::as_bytes(elements);
    tensor.bytes.insert(tensor.bytes.end(), bytes.begin(), bytes.end());
  }

  template <class F>
  void with_parts(F f) const;
  Tensor& insert(std::string name, Tensor tensor);
  std::vector<const Named*> ordered() const;
  std::string header(std::span<const Named* const> tensors) const;
  static std::string quoted(const std::string& text) { return nlohmann::json(text).dump(); }
  static void require_utf8(const std::string& text);

  std::map<std::string, std::string> metadata_;
  std::map<std::string, Tensor> tensors_;
};

static_assert(std::endian::native == std::endian::little, "safetensors: expected a little-endian machine");

/// f(parts of the file, in order)
template <class F>
void SafetensorsWriter::with_parts(F f) const {
  const std::vector<const Named*> tensors = ordered();
  const std::string json = header(tensors);
  const std::uint64_t length = json.size();

  std::vector<std::span<const std::byte>> parts{std::as_bytes(std::span(&length, 1)), std::as_bytes(std::span(json))};
  for (const Named* tensor : tensors) parts.emplace_back(tensor->second.bytes);
  f(std::span<const std::span<const std::byte>>(parts));
}

inline void SafetensorsWriter::write(std::ostream& stream) const {
  with_parts([&](auto parts) {
    for (const std::span<const std::byte> part : parts)
      stream.write(reinterpret_cast<const char*>(part.data()), std::streamsize(part.size()));
  });
  if (!stream.flush()) throw file_error("SafetensorsWriter", "a stream that takes the file", "one that failed");
}

inline std::vector<std::byte> SafetensorsWriter::bytes() const {
  std::vector<std::byte> all;
  with_parts([&](auto parts) {
    for (const std::span<const std::byte> part : parts) all.insert(all.end(), part.begin(), part.end());
  });
  return all;
}

inline void SafetensorsWriter::add_bytes(std::string name, Dtype dtype, std::vector<Index> shape,
                                         std::span<const std::byte> bytes) {
  Index elements = 1;
  for (const Index size : shape) elements = checked_product("SafetensorsWriter: elements", elements, size);
  const Index bits = checked_product("SafetensorsWriter: bits", elements, bits_of(dtype));
  require(bits % 8 == 0 && bits / 8 == Index(bytes.size()), ErrorCode::shape, "SafetensorsWriter: expected ", bits,
          " bits of '", name, "' by its shape and dtype, found ", bytes.size(), " bytes");
  insert(std::move(name), {dtype, std::move(shape), {bytes.begin(), bytes.end()}});
}

inline SafetensorsWriter::Tensor& SafetensorsWriter::insert(std::string name, Tensor tensor) {
  require_utf8(name);
  require(name != "__metadata__", ErrorCode::option,
          "SafetensorsWriter: expected the name of a tensor, found '__metadata__', which the "
          "format reserves");
  const auto [place, first] = tensors_.emplace(std::move(name), std::move(tensor));
  if (!first)
    throw Error(ErrorCode::option, "SafetensorsWriter: expected each name once, found '" + place->first + "' twice");
  return place->second;
}

inline std::vector<const SafetensorsWriter::Named*> SafetensorsWriter::ordered() const {
  std::vector<const Named*> tensors;
  for (const Named& tensor : tensors_) tensors.push_back(&tensor);
  std::stable_sort(tensors.begin(), tensors.end(), [](const Named* a, const Named* b) {
    return bits_of(a->second.dtype) > bits_of(b->second.dtype);  // the map orders them by name
  });
  return tensors;
}

/// The JSON, padded with spaces. Written piece by piece, to keep the order of the tensors.
inline std::string SafetensorsWriter::header(std::span<const Named* const> tensors) const {
  std::string json, comma = "{";
  if (!metadata_.empty()) {
    json += comma + "\"__metadata__\":" + nlohmann::json(metadata_).dump();
    comma = ",";
  }
  std::size_t begin = 0;
  for (const Named* tensor : tensors) {
    const auto& [dtype, shape, bytes] = tensor->second;
    json += comma + quoted(tensor->first) + ":{\"dtype\":\"" + std::string(name_of(dtype)) +
            "\",\"shape\":" + nlohmann::json(shape).dump() + ",\"data_offsets\":[" + std::to_string(begin) + "," +
            std::to_string(begin + bytes.size()) + "]}";
    begin += bytes.size();
    comma = ",";
  }
  json += comma == "{" ? "{}" : "}";
  json.resize((json.size() + 7) / 8 * 8, ' ');
  return json;
}

/// Checked when text is added, rather than when a long training run is to be saved.
inline void SafetensorsWriter::require_utf8(const std::string& text) try {
  quoted(text);
} catch (const nlohmann::json::type_error& error) {
  throw Error(ErrorCode::option,
              std::string("SafetensorsWriter: expected names and metadata in UTF-8, found ") + error.what());
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
