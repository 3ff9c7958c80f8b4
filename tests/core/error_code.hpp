// SPDX-License-Identifier: MIT
// code_of(), text_of(), error_text(): the Error that a call throws.
#pragma once

#include "mole/core/error.hpp"

#include <optional>
#include <string>

namespace mole::test {

/// The code of the Error that call() throws; none when it throws nothing.
template <class Call>
std::optional<ErrorCode> code_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  return {};
}

/// The text of the Error that call() throws; empty when it throws nothing.
template <class Call>
std::string text_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

/// The text of the Error of that code that call() throws; empty when it throws nothing.
template <class Call>
std::string error_text(ErrorCode code, Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code() == code ? error.what() : "another code: " + std::string(error.what());
  }
  return {};
}

}  // namespace mole::test
