// SPDX-License-Identifier: MIT
// file_error(): the one form of all errors about files.
#pragma once

#include "mole/core/error.hpp"

#if defined(__GNUC__) && !defined(__cpp_exceptions)
#error "mole/io reports errors by exceptions: compile the units that include it without -fno-exceptions"
#endif

#include <string>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Error(file) with "<source>: expected <expected>, found <found>"; `source` is a path, or a name for bytes in memory.
inline Error file_error(const std::string& source, const std::string& expected, const std::string& found) {
  return Error(ErrorCode::file, source + ": expected " + expected + ", found " + found);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
