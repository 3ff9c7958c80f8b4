// SPDX-License-Identifier: MIT
// Code points of a text, and what a tokenizer asks of them.
#pragma once

#include <string>
#include <string_view>

namespace encoder {

/// Of UTF-8; what is no code point becomes U+FFFD.
std::u32string code_points(std::string_view text);

/// Appends the UTF-8 of `point`.
void append_utf8(char32_t point, std::string& text);

bool is_space(char32_t point);
/// Controls, formats and private use, but for tab and ends of lines.
bool is_control(char32_t point);
/// Of ASCII everything that is no letter, digit, space or control; of others the categories P*.
bool is_punctuation(char32_t point);
/// Ideographs, which BERT takes one by one.
bool is_ideograph(char32_t point);

/// Lower case, and without the accents of its canonical decomposition.
std::u32string lower_without_accents(std::u32string_view text);

}  // namespace encoder
