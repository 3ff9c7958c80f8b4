// SPDX-License-Identifier: MIT
// file_of(), file_with_length(): hand-made safetensors files, valid and invalid.
#pragma once

#include "mole/core/error.hpp"
#include "mole/io/safetensors_reader.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mole::test {

/// A file whose length says `length` and which holds `json`, then `buffer`.
inline std::vector<std::byte> file_with_length(std::uint64_t length, std::string_view json, std::string_view buffer) {
  std::vector<std::byte> file;
  for (int i = 0; i < 8; ++i) file.push_back(std::byte((length >> (8 * i)) & 0xff));
  for (std::string_view part : {json, buffer})
    for (char c : part) file.push_back(std::byte(c));
  return file;
}

inline std::vector<std::byte> file_of(std::string_view json, std::string_view buffer = {}) {
  return file_with_length(json.size(), json, buffer);
}

/// The text of the Error(file) that reading `file` throws; empty when it loads.
inline std::string complaint(std::span<const std::byte> file) {
  try {
    SafetensorsReader::from_bytes(file, "test");
    return {};
  } catch (const Error& error) {
    return error.code() == ErrorCode::file ? error.what() : "another code";
  }
}

/// The same for a file of `json` and `bytes` zero bytes of tensors.
inline std::string complaint(std::string_view json, std::size_t bytes) {
  return complaint(file_of(json, std::string(bytes, '\0')));
}

}  // namespace mole::test
