// SPDX-License-Identifier: MIT
// GgufWriter: writes tensors and metadata as a GGUF file.
#pragma once

#include "mole/base/q8_base.hpp"
#include "mole/core/checked_size.hpp"
#include "mole/core/reduced_floats.hpp"
#include "mole/core/view.hpp"
#include "mole/io/file_error.hpp"
#include "mole/io/gguf/gguf_type.hpp"
#include "mole/io/replace_file.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Collects tensors and metadata, then writes them at once, as version 3 with an alignment of 32, in the order in which
/// they were added. Elements are copied and converted by add().
/// Throws Error(option) for a name that is given twice or longer than 63 bytes, which llama.cpp does not load, for a
/// type that it cannot write, and for numbers that a type cannot hold; Error(file) when writing fails.
class GgufWriter {
 public:
  /// A later value of the same key replaces the earlier one.
  void set(const std::string& key, std::string text) { metadata_[key] = std::move(text); }
  void set(const std::string& key, float number) { metadata_[key] = number; }
  void set(const std::string& key, std::uint32_t number) { metadata_[key] = number; }

  /// [rows x cols] as F32, F16, BF16 or, with columns in blocks of 32, Q8_0: absmax / 127 is a block's scale.
  void add(std::string name, View<const float> matrix, GgufType type = GgufType::f32) {
    add(std::move(name), {matrix.rows(), matrix.cols()}, matrix, type);
  }
  /// Of another shape, whose last dimension is a row of `matrix`.
  void add(std::string name, std::vector<Index> shape, View<const float> matrix, GgufType type = GgufType::f32);

  /// Replaces `path` by the whole file or, on failure, leaves it unchanged; see replace_file.  O(size)
  void write(const std::filesystem::path& path) const;

 private:
  static constexpr std::size_t alignment = 32;

  struct Tensor {
    std::string name;
    GgufType type;
    std::vector<Index> shape;
    std::vector<std::byte> bytes;
  };

  static void append(std::vector<std::byte>& bytes, const auto& number) {
    const auto added = std::as_bytes(std::span(&number, 1));
    bytes.insert(bytes.end(), added.begin(), added.end());
  }
  static void append_text(std::vector<std::byte>& bytes, const std::string& text) {
    append(bytes, std::uint64_t(text.size()));
    const auto added = std::as_bytes(std::span(text));
    bytes.insert(bytes.end(), added.begin(), added.end());
  }
  static std::size_t padded(std::size_t size) { return (size + alignment - 1) / alignment * alignment; }
  static void append_row(std::vector<std::byte>& bytes, std::span<const float> row, GgufType type);

  std::map<std::string, std::variant<std::string, float, std::uint32_t>> metadata_;
  std::vector<Tensor> tensors_;
};

inline void GgufWriter::add(std::string name, std::vector<Index> shape, View<const float> matrix, GgufType type) {
  require(!name.empty() && name.size() < 64, ErrorCode::option, "GgufWriter: expected a name of 1 to 63 bytes, found '",
          name, "'");
  const auto same = [&](const Tensor& tensor) { return tensor.name == name; };
  require(std::ranges::none_of(tensors_, same), ErrorCode::option, "GgufWriter: expected each name once, found '", name,
          "' twice");
  require(type == GgufType::f32 || type == GgufType::f16 || type == GgufType::bf16 || type == GgufType::q8_0,
          ErrorCode::option, "GgufWriter: expected F32, F16, BF16 or Q8_0 for '", name, "', found ", name_of(type));
  require(type != GgufType::q8_0 || matrix.cols() % 32 == 0, ErrorCode::option,
          "GgufWriter: expected rows of whole blocks of 32 for '", name, "', found ", matrix.cols(), " elements");
  Index elements = 1;
  for (const Index size : shape) elements = checked_product("GgufWriter: elements", elements, size);
  require(!shape.empty() && shape.size() <= 4 && shape.back() == matrix.cols() && elements == matrix.size(),
          ErrorCode::shape, "GgufWriter: expected up to 4 dimensions of '", name, "' that are a matrix [",
          matrix.rows(), " x ", matrix.cols(), "], found ", shape.size(), " of ", elements, " elements");
  Tensor tensor{std::move(name), type, std::move(shape), {}};
  for (Index r = 0; r < matrix.rows(); ++r) append_row(tensor.bytes, matrix.row(r), type);
  tensors_.push_back(std::move(tensor));
}

inline void GgufWriter::append_row(std::vector<std::byte>& bytes, std::span<const float> row, GgufType type) {
  if (type == GgufType::q8_0) {
    const Q8Weight coded(View<const float>(row.data(), 1, Index(row.size())));
    bytes.insert(bytes.end(), coded.blocks().begin(), coded.blocks().end());
    return;
  }
  for (const float number : row) {
    if (type == GgufType::f32)
      append(bytes, number);
    else
      append(bytes, type == GgufType::f16 ? to_float16(number) : to_bfloat16(number));
  }
}

inline void GgufWriter::write(const std::filesystem::path& path) const {
  std::vector<std::byte> header;
  for (const char letter : {'G', 'G', 'U', 'F'}) append(header, letter);
  append(header, std::uint32_t(3));
  append(header, std::uint64_t(tensors_.size()));
  append(header, std::uint64_t(metadata_.size()));
  for (const auto& [key, value] : metadata_) {
    append_text(header, key);
    append(header, std::uint32_t(value.index() == 0 ? 8 : value.index() == 1 ? 6 : 4));
    if (const auto* const text = std::get_if<std::string>(&value))
      append_text(header, *text);
    else if (const auto* const real = std::get_if<float>(&value))
      append(header, *real);
    else
      append(header, std::get<std::uint32_t>(value));
  }
  std::uint64_t offset = 0;
  for (const Tensor& tensor : tensors_) {
    append_text(header, tensor.name);
    append(header, std::uint32_t(tensor.shape.size()));
    for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size) append(header, std::uint64_t(*size));
    append(header, std::uint32_t(tensor.type));
    append(header, offset);
    offset += padded(tensor.bytes.size());
  }
  header.resize(padded(header.size()));

  constexpr std::array<std::byte, alignment> zeros{};
  std::vector<std::span<const std::byte>> parts{header};
  for (const Tensor& tensor : tensors_) {
    parts.emplace_back(tensor.bytes);
    parts.emplace_back(std::span(zeros).first(padded(tensor.bytes.size()) - tensor.bytes.size()));
  }
  replace_file(path, parts);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
