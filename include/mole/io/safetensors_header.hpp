// SPDX-License-Identifier: MIT
// SafetensorsHeader: the header of a safetensors file, accepted only after every check.
#pragma once

#include "mole/core/config.hpp"
#include "mole/io/dtype.hpp"
#include "mole/io/safetensors_json.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// One tensor of a safetensors file; its bytes are borrowed from the file and may begin at any address.
struct SafetensorsEntry {
  std::string name;
  Dtype dtype;
  std::vector<Index> shape;  ///< empty for a scalar; a dimension of 0 is allowed
  std::span<const std::byte> bytes;
};

/// The parsed header of a safetensors file.
///
///   8 bytes: length of the JSON, little endian - JSON, possibly followed by spaces - the tensors' bytes, gap-free
struct SafetensorsHeader {
  static constexpr std::uint64_t max_length = 100'000'000;

  std::map<std::string, std::string> metadata;
  std::vector<SafetensorsEntry> tensors;  ///< in the order of their bytes
  std::span<const std::byte> bytes = {};  ///< length and JSON: of the file, all before the tensors

  /// Throws Error(file), naming `source`, unless `file` keeps every rule of the format: lengths within the file and
  /// max_length, one JSON object without duplicate keys, known dtypes, sizes that follow from shape and dtype, no gap,
  /// no overlap, no byte left over.  O(header + n log n) for n tensors.
  /// Source: huggingface/safetensors, safetensors/src/tensor.rs; that reader ignores unknown fields of a tensor, this
  /// one rejects them.
  static SafetensorsHeader parse(std::span<const std::byte> file, const std::string& source);
};

namespace detail {

/// Splits `file` into the JSON, still padded, and the tensors' bytes.
inline std::pair<std::string_view, std::span<const std::byte>> cut_safetensors(std::span<const std::byte> file,
                                                                               const std::string& source) {
  if (file.size() < 8) throw file_error(source, "at least 8 bytes", std::to_string(file.size()));
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < 8; ++i) length |= std::uint64_t(file[i]) << (8 * i);
  if (length > SafetensorsHeader::max_length) {
    const std::string_view begin(reinterpret_cast<const char*>(file.data()), 8);
    for (const auto& [magic, format] : {std::pair<std::string_view, const char*>{"GGUF", "a GGUF file"},
                                        {"PK\3\4", "an archive, such as PyTorch's pickles"},
                                        {"version ", "a text, such as Git LFS has in place of a file"}})
      if (begin.starts_with(magic)) throw file_error(source, "a safetensors file", format);
    throw file_error(source, "a header of at most " + std::to_string(SafetensorsHeader::max_length) + " bytes",
                     std::to_string(length));
  }
  if (length > file.size() - 8)
    throw file_error(source, "a header of " + std::to_string(length) + " bytes",
                     std::to_string(file.size() - 8) + " to the end of the file");
  const std::span<const std::byte> json = file.subspan(8, std::size_t(length));
  return {{reinterpret_cast<const char*>(json.data()), json.size()}, file.subspan(8 + json.size())};
}

/// `json` without its padding. The JSON parser would take a zero byte for the end and any white space for padding.
inline std::string_view without_padding(std::string_view json, const std::string& source) {
  const auto byte = [](char c) { return "byte " + std::to_string(static_cast<unsigned char>(c)); };
  if (!json.starts_with('{'))
    throw file_error(source, "a header that begins with {", json.empty() ? "no byte" : byte(json.front()));
  if (json.find('\0') != json.npos) throw file_error(source, "a header of text", byte('\0'));
  json = json.substr(0, json.find_last_not_of(' ') + 1);
  if (!json.ends_with('}')) throw file_error(source, "a header that ends with } and spaces", byte(json.back()));
  return json;
}

/// Bytes of a tensor; nothing if their number overflows or the last byte would be shared.
inline std::optional<std::uint64_t> bytes_of(const std::vector<std::uint64_t>& shape, Dtype dtype) {
  constexpr std::uint64_t most = std::uint64_t(std::numeric_limits<Index>::max());
  std::uint64_t elements = 1;
  for (std::uint64_t dimension : shape) {
    if (dimension > most || (dimension != 0 && elements > most / dimension)) return {};
    elements *= dimension;
  }
  const std::uint64_t bits = std::uint64_t(bits_of(dtype));
  if (elements > most / bits || elements * bits % 8 != 0) return {};
  return elements * bits / 8;
}

/// The entry that `claim` describes, with its bytes in `buffer`.
inline SafetensorsEntry entry_of(SafetensorsClaim&& claim, std::span<const std::byte> buffer,
                                 const std::string& source) {
  const std::string of_name = " of '" + claim.name + "'";
  const std::optional<Dtype> dtype = dtype_named(*claim.dtype);
  if (!dtype) throw file_error(source, "a known dtype" + of_name, "'" + *claim.dtype + "'");
  const std::uint64_t begin = (*claim.data_offsets)[0], end = (*claim.data_offsets)[1];
  if (begin > end || end > buffer.size())
    throw file_error(source, "data_offsets" + of_name + " ascending within " + std::to_string(buffer.size()) + " bytes",
                     std::to_string(begin) + " and " + std::to_string(end));
  const std::optional<std::uint64_t> size = bytes_of(*claim.shape, *dtype);
  if (!size)
    throw file_error(source, "a whole number of bytes" + of_name + " below 2^60",
                     nlohmann::json(*claim.shape).dump() + " of " + *claim.dtype);
  if (*size != end - begin)
    throw file_error(source, std::to_string(*size) + " bytes" + of_name + " by its shape and dtype",
                     std::to_string(end - begin) + " by its data_offsets");
  return {std::move(claim.name),
          *dtype,
          {claim.shape->begin(), claim.shape->end()},
          buffer.subspan(std::size_t(begin), std::size_t(*size))};
}

/// Orders the tensors by their bytes and checks that they cover `buffer` without gaps.
inline void require_gap_free(std::vector<SafetensorsEntry>& tensors, std::span<const std::byte> buffer,
                             const std::string& source) {
  std::sort(tensors.begin(), tensors.end(), [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
    return std::tuple(a.bytes.data(), a.bytes.size(), std::string_view(a.name)) <
           std::tuple(b.bytes.data(), b.bytes.size(), std::string_view(b.name));
  });
  std::size_t end = 0;
  for (const SafetensorsEntry& tensor : tensors) {
    const std::size_t begin = std::size_t(tensor.bytes.data() - buffer.data());
    if (begin != end)
      throw file_error(source, "'" + tensor.name + "' to begin at byte " + std::to_string(end),
                       (begin < end ? "an overlap from byte " : "a hole up to byte ") + std::to_string(begin));
    end += tensor.bytes.size();
  }
  if (end != buffer.size())
    throw file_error(source, std::to_string(end) + " bytes of tensors", std::to_string(buffer.size()));
}

}  // namespace detail

inline SafetensorsHeader SafetensorsHeader::parse(std::span<const std::byte> file, const std::string& source) {
  const auto [padded, buffer] = detail::cut_safetensors(file, source);
  const std::string_view text = detail::without_padding(padded, source);
  detail::SafetensorsJson json(source);
  nlohmann::json::sax_parse(text.begin(), text.end(), &json);

  SafetensorsHeader header{std::move(json.metadata), {}, file.first(file.size() - buffer.size())};
  for (detail::SafetensorsClaim& claim : json.claims)
    header.tensors.push_back(detail::entry_of(std::move(claim), buffer, source));
  detail::require_gap_free(header.tensors, buffer, source);
  return header;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
