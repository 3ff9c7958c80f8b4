// SPDX-License-Identifier: MIT
// Error: the one exception of mole, with a stable code.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace mole {

/// The kind of error, as a number that stays the same from version to version.
enum class ErrorCode {
  shape = 1,          ///< two sizes that must agree differ
  option = 2,         ///< an option lies outside its range
  file = 3,           ///< a file cannot be read, or does not hold what its format demands
  capacity = 4,       ///< a workspace was made for fewer tokens or pairs
  not_mergeable = 5,  ///< a token-dependent mixture has no single weight
  not_trainable = 6,  ///< a layer of inference-only policies was asked for gradients
};

/// Thrown for wrong shapes, options and files; the text names what was expected and what was found.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& text) : std::runtime_error(text), code_(code) {}

  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

namespace detail {
template <class Part>
void append(std::string& text, const Part& part) {
  if constexpr (std::is_arithmetic_v<Part>)
    text += std::to_string(part);
  else
    text += part;
}

template <class... Parts>
[[noreturn]] void fail(ErrorCode code, const Parts&... parts) {
  std::string text;
  (append(text, parts), ...);
  throw Error(code, text);
}
}  // namespace detail

/// Throws Error(code) unless `holds`; the text is the concatenation of `parts`, strings and numbers.
///     require(k >= 1 && k <= experts, ErrorCode::option, "TopK: expected k from 1 to ", experts, ", found ", k);
template <class... Parts>
void require(bool holds, ErrorCode code, const Parts&... parts) {
  if (!holds) detail::fail(code, parts...);
}

/// Throws Error(code) with "<what>: expected <expected>, found <found>" unless the two numbers agree.
template <class Expected, class Found>
void require_equal(ErrorCode code, std::string_view what, Expected expected, Found found) {
  require(expected == found, code, what, ": expected ", expected, ", found ", found);
}

}  // namespace mole
