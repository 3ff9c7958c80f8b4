// SPDX-License-Identifier: MIT
// printable(): text from a stranger's file that a terminal only shows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace training {

namespace detail {
/// Moves the cursor, starts a sequence, breaks a line, or turns the direction of what follows.
constexpr bool acts_on_terminal(std::uint32_t c) {
  return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x200e || c == 0x200f || (c >= 0x2028 && c <= 0x202e) ||
         (c >= 0x2066 && c <= 0x2069) || c == 0xfeff;
}
}  // namespace detail

/// The text with ? for each control character and each byte that is no UTF-8.
inline std::string printable(std::string_view text) {
  std::string shown;
  for (std::size_t at = 0; at < text.size();) {
    const auto byte = [&](std::size_t i) { return std::uint32_t(static_cast<unsigned char>(text[at + i])); };
    const std::size_t size = byte(0) < 0x80   ? 1
                             : byte(0) < 0xc2 ? 0
                             : byte(0) < 0xe0 ? 2
                             : byte(0) < 0xf0 ? 3
                             : byte(0) < 0xf5 ? 4
                                              : 0;
    bool whole = size > 0 && size <= text.size() - at;
    std::uint32_t character = size < 2 ? byte(0) : byte(0) & (0x7fu >> size);
    for (std::size_t i = 1; whole && i < size; ++i) {
      whole = (byte(i) & 0xc0) == 0x80;
      character = character << 6 | (byte(i) & 0x3f);
    }
    if (whole && !detail::acts_on_terminal(character))
      shown += text.substr(at, size);
    else
      shown += '?';
    at += whole ? size : 1;
  }
  return shown;
}

}  // namespace training
