// SPDX-License-Identifier: MIT
#pragma once

// Reads a file if it is text.

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <vector>

namespace text {

namespace detail {

/// Length of the well-formed UTF-8 character of several bytes at the start of `bytes`, 0 if there is none.
inline std::size_t utf8_length(std::span<const std::uint8_t> bytes) {
  const std::uint8_t lead = bytes[0];
  if (lead < 0xc2 || lead >= 0xf8) return 0;
  const std::size_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  if (length > bytes.size()) return 0;
  const auto tail = bytes.subspan(1, length - 1);
  return std::all_of(tail.begin(), tail.end(), [](std::uint8_t b) { return (b & 0xc0) == 0x80; }) ? length : 0;
}

}  // namespace detail

/// Text has no NUL, and at most a tenth of it is control characters or broken UTF-8.
inline bool is_text(std::span<const std::uint8_t> bytes) {
  std::size_t odd = 0;
  for (std::size_t i = 0; i < bytes.size();) {
    const std::uint8_t b = bytes[i];
    if (b == 0) return false;
    std::size_t step = 1;
    if (b >= 0x80) {
      step = detail::utf8_length(bytes.subspan(i));
      odd += step == 0;
    } else {
      odd += b == 0x7f || (b < 0x20 && !(b >= '\t' && b <= '\r'));
    }
    i += std::max<std::size_t>(step, 1);
  }
  return odd * 10 <= bytes.size();
}

enum class ReadResult { text, not_text, unreadable };

/// Reads up to `max_bytes` of a regular file into `bytes`; of a longer one the head, up to its last whole line.
inline ReadResult read_text(const std::filesystem::path& path, std::size_t max_bytes,
                            std::vector<std::uint8_t>& bytes) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return ReadResult::unreadable;  // a pipe would block
  const auto size = static_cast<std::size_t>(std::filesystem::file_size(path, error));
  std::ifstream in(path, std::ios::binary);
  if (error || !in) return ReadResult::unreadable;
  bytes.resize(std::min(size, max_bytes));
  in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (in.bad()) return ReadResult::unreadable;
  bytes.resize(static_cast<std::size_t>(in.gcount()));
  if (size > max_bytes) {
    const auto newline = std::find(bytes.rbegin(), bytes.rend(), '\n');
    if (newline != bytes.rend()) bytes.erase(newline.base(), bytes.end());
  }
  return !bytes.empty() && is_text(bytes) ? ReadResult::text : ReadResult::not_text;
}

}  // namespace text
