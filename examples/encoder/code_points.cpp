// SPDX-License-Identifier: MIT
#include "encoder/code_points.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

namespace encoder {

namespace {

utf8proc_category_t category(char32_t point) {
  return utf8proc_category(utf8proc_int32_t(point));
}

}  // namespace

std::u32string code_points(std::string_view text) {
  std::u32string result;
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  for (std::size_t i = 0; i < text.size();) {
    utf8proc_int32_t point = 0;
    const utf8proc_ssize_t length = utf8proc_iterate(bytes + i, utf8proc_ssize_t(text.size() - i), &point);
    result += length > 0 ? char32_t(point) : U'\uFFFD';
    i += length > 0 ? std::size_t(length) : 1;
  }
  return result;
}

void append_utf8(char32_t point, std::string& text) {
  std::array<utf8proc_uint8_t, 4> bytes{};
  const utf8proc_ssize_t length = utf8proc_encode_char(utf8proc_int32_t(point), bytes.data());
  text.append(reinterpret_cast<const char*>(bytes.data()), std::size_t(length));
}

bool is_space(char32_t point) {
  switch (category(point)) {
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return true;
    default:
      return (point >= U'\t' && point <= U'\r') || point == U'\u0085';
  }
}

bool is_control(char32_t point) {
  if (point == U'\t' || point == U'\n' || point == U'\r') return false;
  switch (category(point)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CO:
      return true;
    default:
      return false;
  }
}

bool is_punctuation(char32_t point) {
  if (point < 128)
    return (point >= U'!' && point <= U'/') || (point >= U':' && point <= U'@') || (point >= U'[' && point <= U'`') ||
           (point >= U'{' && point <= U'~');
  switch (category(point)) {
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
      return true;
    default:
      return false;
  }
}

bool is_ideograph(char32_t point) {
  // The blocks of CJK unified and compatibility ideographs that BERT knows.
  constexpr std::array<std::pair<char32_t, char32_t>, 8> blocks{{{0x4E00, 0x9FFF},
                                                                 {0x3400, 0x4DBF},
                                                                 {0x20000, 0x2A6DF},
                                                                 {0x2A700, 0x2B73F},
                                                                 {0x2B740, 0x2B81F},
                                                                 {0x2B920, 0x2CEAF},
                                                                 {0xF900, 0xFAFF},
                                                                 {0x2F800, 0x2FA1F}}};
  return std::any_of(blocks.begin(), blocks.end(),
                     [point](const auto& block) { return point >= block.first && point <= block.second; });
}

std::u32string lower_without_accents(std::u32string_view text) {
  std::u32string result;
  std::array<utf8proc_int32_t, 32> parts{};  // a canonical decomposition has 4 at most
  for (const char32_t point : text) {
    int boundary = 0;
    const utf8proc_ssize_t count =
        utf8proc_decompose_char(utf8proc_int32_t(point), parts.data(), parts.size(), UTF8PROC_DECOMPOSE, &boundary);
    for (utf8proc_ssize_t i = 0; i < count; ++i)
      if (category(char32_t(parts[std::size_t(i)])) != UTF8PROC_CATEGORY_MN)
        result += char32_t(utf8proc_tolower(parts[std::size_t(i)]));
  }
  return result;
}

}  // namespace encoder
