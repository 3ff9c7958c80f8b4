// SPDX-License-Identifier: MIT
// Error: the one exception of mole, with a stable code; and what a program without exceptions has instead.
#pragma once

#include "mole/core/config.hpp"

#include <array>
#include <atomic>
#include <concepts>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The kind of error, as a number that stays the same from version to version.
enum class ErrorCode {
  shape = 1,          ///< two sizes that must agree differ
  option = 2,         ///< an option lies outside its range
  file = 3,           ///< a file cannot be read, or does not hold what its format demands
  capacity = 4,       ///< a workspace was made for fewer tokens or pairs, or for smaller layers; a limit is reached
  not_mergeable = 5,  ///< a token-dependent mixture has no single weight
  not_trainable = 6,  ///< a layer of inference-only policies was asked for gradients
  order = 7,          ///< calls in an order in which they have no meaning, such as a backward without its forward
  unknown_id = 8,     ///< an id that nothing has, such as that of an adapter that was removed
  duplicate_id = 9,   ///< an id for something new that something else has already
};

/// Thrown for wrong shapes, options and files; the text names what was expected and what was found.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& text) : std::runtime_error(text), code_(code) {}

  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

/// What a program that is compiled without exceptions (-fno-exceptions) calls where others get an Error. It may end the
/// thread or the program, or jump; if it returns, the program is aborted. All units that include mole are compiled
/// alike in this.
using ErrorHandler = void (*)(ErrorCode code, const char* text);

namespace detail {
inline void print_error(ErrorCode code, const char* text) {
  std::fprintf(stderr, "mole: error %d: %s\n", int(code), text);
}
inline std::atomic<ErrorHandler> error_handler = &print_error;
}  // namespace detail

/// Sets the handler, and returns the one before; null stands for the first, which prints to stderr.
inline ErrorHandler set_error_handler(ErrorHandler handler) {
  return detail::error_handler.exchange(handler != nullptr ? handler : &detail::print_error);
}

namespace detail {
[[noreturn]] inline void raise(ErrorCode code, const std::string& text) {
#ifdef __cpp_exceptions
  throw Error(code, text);
#else
  error_handler.load()(code, text.c_str());
  std::abort();
#endif
}

/// f(), and undo() if it throws.
template <class F, class Undo>
void or_undo(F f, [[maybe_unused]] Undo undo) {
#ifdef __cpp_exceptions
  try {
    f();
  } catch (...) {
    undo();
    throw;
  }
#else
  f();
#endif
}

/// f(); what it throws.
template <class F>
std::exception_ptr caught(F f) {
#ifdef __cpp_exceptions
  try {
    f();
  } catch (...) {
    return std::current_exception();
  }
#else
  f();
#endif
  return nullptr;
}

/// One piece of an error's text. Trivial, and made into text only by fail(): a require() that holds costs its
/// condition, and one that stands a hundred times in a program costs its compiler little.
class ErrorPart {
 public:
  ErrorPart(std::string_view text) : text_(text) {}
  ErrorPart(const char* text) : text_(text) {}
  ErrorPart(const std::string& text) : text_(text) {}
  ErrorPart(double real) : kind_(Kind::real), real_(real) {}
  template <std::integral Integer>
  ErrorPart(Integer integer)
      : kind_(std::is_signed_v<Integer> ? Kind::integer : Kind::natural), integer_(static_cast<long long>(integer)) {}

  void append_to(std::string& text) const {
    switch (kind_) {
      case Kind::text:
        text += text_;
        break;
      case Kind::integer:
        text += std::to_string(integer_);
        break;
      case Kind::natural:
        text += std::to_string(static_cast<unsigned long long>(integer_));
        break;
      case Kind::real:
        text += real_as_text().data();
        break;
    }
  }

 private:
  enum class Kind { text, integer, natural, real };

  std::array<char, 32> real_as_text() const {  // not to_string(): of 1e-50 that is 0.000000
    std::array<char, 32> text;
    std::snprintf(text.data(), text.size(), "%g", real_);
    return text;
  }

  Kind kind_ = Kind::text;
  std::string_view text_;
  long long integer_ = 0;
  double real_ = 0;
};

[[noreturn]] inline void fail(ErrorCode code, std::initializer_list<ErrorPart> parts) {
  std::string text;
  for (const ErrorPart& part : parts) part.append_to(text);
  raise(code, text);
}

/// The few types that parts come to, so that few functions make an error's text.
inline const char* plain(const char* text) {
  return text;
}
inline std::string_view plain(std::string_view text) {
  return text;
}
inline std::string_view plain(const std::string& text) {
  return text;
}
inline double plain(double real) {
  return real;
}
template <std::signed_integral Integer>
long long plain(Integer integer) {
  return integer;
}
template <std::unsigned_integral Integer>
unsigned long long plain(Integer integer) {
  return integer;
}

template <class... Parts>
[[noreturn]] MOLE_COLD void fail_with(ErrorCode code, Parts... parts) {
  fail(code, {parts...});
}
}  // namespace detail

/// Throws Error(code) unless `holds`; the text is the concatenation of `parts`, strings and numbers.
///     require(k >= 1 && k <= experts, ErrorCode::option, "TopK: expected k from 1 to ", experts, ", found ", k);
template <class... Parts>
MOLE_INLINE inline void require(bool holds, ErrorCode code, const Parts&... parts) {
  if (!holds) [[unlikely]]
    detail::fail_with(code, detail::plain(parts)...);
}

/// Throws Error(code) with "<what>: expected <expected>, found <found>" unless the two numbers agree.
template <class Expected, class Found>
MOLE_INLINE inline void require_equal(ErrorCode code, std::string_view what, Expected expected, Found found) {
  require(expected == found, code, what, ": expected ", expected, ", found ", found);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
