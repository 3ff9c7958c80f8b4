// SPDX-License-Identifier: MIT
#include "mole/c/option_text.hpp"

#include "mole/core/error.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <utility>

namespace mole::c {
namespace {

constexpr std::string_view separators = " \t\r\n\v\f,;";

/// All of `text` as a number; false if it is none, or beyond the type.
template <class Number>
bool parse(std::string_view text, Number& number) {
  if (text.starts_with('+')) text.remove_prefix(1);
  Number read{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), read);
  if (error != std::errc{} || end != text.data() + text.size()) return false;
  if constexpr (std::is_floating_point_v<Number>)
    if (!std::isfinite(read)) return false;
  number = read;
  return true;
}

/// For messages: at most so much of what a caller gave.
std::string_view part(std::string_view text) {
  return text.substr(0, 60);
}

std::string listed(std::span<const char* const> words) {
  std::string list;
  for (const char* word : words) list += (list.empty() ? "" : ", ") + std::string(word);
  return list;
}

}  // namespace

OptionReader::OptionReader(std::string who, const char* text) : who_(std::move(who)) {
  std::string_view rest = text == nullptr ? std::string_view() : std::string_view(text);
  while (true) {
    const std::size_t begin = rest.find_first_not_of(separators);
    if (begin == rest.npos) break;
    rest.remove_prefix(begin);
    const std::string_view pair = rest.substr(0, rest.find_first_of(separators));
    rest.remove_prefix(pair.size());
    const std::size_t equals = pair.find('=');
    require(equals != pair.npos && equals > 0 && equals + 1 < pair.size(), ErrorCode::option, who_,
            ": expected options as key=value, without spaces around '=', found '", part(pair), "'");
    const bool added = values_.emplace(pair.substr(0, equals), pair.substr(equals + 1)).second;
    require(added, ErrorCode::option, who_, ": expected each key once, found '", part(pair.substr(0, equals)),
            "' twice");
  }
}

std::optional<std::string_view> OptionReader::find(const char* key) {
  asked_ += (asked_.empty() ? "" : ", ") + std::string(key);
  const auto found = values_.find(key);
  if (found == values_.end()) return std::nullopt;
  return found->second;
}

void OptionReader::refuse(std::string_view key, std::string_view expected, std::string_view found) const {
  detail::fail(ErrorCode::option, {who_, ": expected ", expected, " for '", key, "', found '", part(found), "'"});
}

template <class Number>
void OptionReader::read(const char* key, Number& number, std::string_view expected) {
  if (const auto value = find(key); value && !parse(*value, number)) refuse(key, expected, *value);
}

void OptionReader::operator()(const char* key, Index& number) {
  read(key, number, "an integer of at most 63 bits");
}
void OptionReader::operator()(const char* key, double& number) {
  read(key, number, "a finite number");
}
void OptionReader::operator()(const char* key, std::uint64_t& seed) {
  read(key, seed, "an integer from 0 to 2^64 - 1");
}

void OptionReader::operator()(const char* key, bool& on) {
  const auto value = find(key);
  if (!value) return;
  if (*value != "0" && *value != "1") refuse(key, "0 or 1", *value);
  on = *value == "1";
}

void OptionReader::operator()(const char* key, std::optional<std::uint64_t>& seed) {
  const auto value = find(key);
  if (!value || *value == "auto") return;
  std::uint64_t number = 0;
  if (!parse(*value, number)) refuse(key, "auto, or an integer from 0 to 2^64 - 1", *value);
  seed = number;
}

void OptionReader::operator()(const char* key, std::vector<int>& numbers) {
  const auto value = find(key);
  if (!value) return;
  std::vector<int> read;
  for (std::string_view rest = *value;;) {
    const std::size_t colon = rest.find(':');
    int number = 0;
    if (!parse(rest.substr(0, colon), number)) refuse(key, "integers with ':' between them", *value);
    read.push_back(number);
    if (colon == rest.npos) break;
    rest.remove_prefix(colon + 1);
  }
  numbers = std::move(read);
}

std::size_t OptionReader::choice(const char* key, std::size_t value, std::span<const char* const> words) {
  const auto found = find(key);
  if (!found) return value;
  for (std::size_t i = 0; i < words.size(); ++i)
    if (*found == words[i]) return i;
  refuse(key, "one of " + listed(words), *found);
}

void OptionReader::end() const {
  for (const auto& [key, value] : values_)
    require((", " + asked_ + ", ").find(", " + key + ", ") != std::string::npos, ErrorCode::option, who_,
            ": expected keys among ", asked_, ", found '", part(key), "'");
}

void OptionPrinter::add(const char* key, std::string_view value) {
  if (!text_.empty()) text_ += ' ';
  text_ += key;
  text_ += '=';
  text_ += value;
}

void OptionPrinter::operator()(const char* key, Index& number) {
  add(key, std::to_string(number));
}
void OptionPrinter::operator()(const char* key, std::uint64_t& seed) {
  add(key, std::to_string(seed));
}
void OptionPrinter::operator()(const char* key, bool& on) {
  add(key, on ? "1" : "0");
}
void OptionPrinter::operator()(const char* key, double& number) {
  std::array<char, 32> digits;  // the fewest that give the same number again
  const auto written = std::to_chars(digits.data(), digits.data() + digits.size(), number);
  add(key, std::string_view(digits.data(), std::size_t(written.ptr - digits.data())));
}
void OptionPrinter::operator()(const char* key, std::optional<std::uint64_t>& seed) {
  add(key, seed ? std::to_string(*seed) : "auto");
}
void OptionPrinter::operator()(const char* key, std::vector<int>& numbers) {
  std::string list;
  for (const int number : numbers) list += (list.empty() ? "" : ":") + std::to_string(number);
  add(key, list);
}
std::size_t OptionPrinter::choice(const char* key, std::size_t value, std::span<const char* const> words) {
  add(key, words[value]);
  return value;
}

}  // namespace mole::c
