// SPDX-License-Identifier: MIT
// The one exception of mole.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace mole {

/// What went wrong, as a number that stays the same from version to version.
enum class ErrorCode {
  shape = 1,          ///< sizes of two things that must agree do not
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

/// Throws Error(code) with "<what>: expected <expected>, found <found>" unless the two numbers agree.
template <class Expected, class Found>
void require_equal(ErrorCode code, std::string_view what, Expected expected, Found found) {
  if (expected == found) return;
  throw Error(code, std::string(what) + ": expected " + std::to_string(expected) + ", found " + std::to_string(found));
}

}  // namespace mole
