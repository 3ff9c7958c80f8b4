// SPDX-License-Identifier: MIT
#pragma once

// Eight kinds of bytes, by which the report asks what a router looks at.

#include <array>
#include <cstdint>
#include <string_view>

namespace adapt {

enum class ByteClass : std::uint8_t { lower, upper, digit, space, newline, bracket, punctuation, other };

inline constexpr std::array<std::string_view, 8> byte_class_names{"lower",   "upper",   "digit",       "space",
                                                                  "newline", "bracket", "punctuation", "other"};

/// ASCII only; bytes from 128 on and control characters are `other`, a tab is a space.
constexpr ByteClass byte_class(std::uint8_t byte) {
  const char c = static_cast<char>(byte);
  if (c >= 'a' && c <= 'z') return ByteClass::lower;
  if (c >= 'A' && c <= 'Z') return ByteClass::upper;
  if (c >= '0' && c <= '9') return ByteClass::digit;
  if (c == ' ' || c == '\t') return ByteClass::space;
  if (c == '\n' || c == '\r') return ByteClass::newline;
  if (std::string_view("()[]{}<>").find(c) != std::string_view::npos) return ByteClass::bracket;
  return byte > 0x20 && byte < 0x7f ? ByteClass::punctuation : ByteClass::other;
}

}  // namespace adapt
