// SPDX-License-Identifier: MIT
// Statuses and texts of errors.
#include "mole/c/handles.hpp"
#include "mole/core/version.hpp"

#include <array>
#include <cstring>

namespace mole::c {
namespace {

/// Not a string: keeping the text of std::bad_alloc must not allocate.
thread_local std::array<char, 1024> last_error{};

/// Without a default, so that the compiler names a code that has no status.
mole_status status_of(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::shape:
      return MOLE_SHAPE;
    case ErrorCode::option:
      return MOLE_OPTION;
    case ErrorCode::file:
      return MOLE_FILE;
    case ErrorCode::capacity:
      return MOLE_CAPACITY;
    case ErrorCode::not_mergeable:
      return MOLE_NOT_MERGEABLE;
    case ErrorCode::not_trainable:
      return MOLE_NOT_TRAINABLE;
    case ErrorCode::order:
      return MOLE_ORDER;
    case ErrorCode::unknown_id:
      return MOLE_UNKNOWN_ID;
    case ErrorCode::duplicate_id:
      return MOLE_DUPLICATE_ID;
  }
  return MOLE_UNEXPECTED;
}

void keep_error(const char* text) noexcept {
  std::strncpy(last_error.data(), text, last_error.size() - 1);
  last_error.back() = '\0';
}

}  // namespace

void require_pointer(const void* pointer, const char* function, const char* argument) {
  if (pointer == nullptr)
    throw NullPointer(std::string(function) + ": expected a pointer for '" + argument + "', found NULL");
}

mole_status status_of_current_exception() noexcept {
  try {
    throw;
  } catch (const Error& error) {
    keep_error(error.what());
    return status_of(error.code());
  } catch (const NullPointer& error) {
    keep_error(error.what());
    return MOLE_NULL_POINTER;
  } catch (const std::bad_alloc&) {
    keep_error("out of memory");
    return MOLE_OUT_OF_MEMORY;
  } catch (const std::length_error& error) {  // more than a container may hold
    keep_error(error.what());
    return MOLE_OUT_OF_MEMORY;
  } catch (const std::exception& error) {
    keep_error(error.what());
    return MOLE_UNEXPECTED;
  } catch (...) {
    keep_error("an exception that is no std::exception");
    return MOLE_UNEXPECTED;
  }
}

}  // namespace mole::c

using namespace mole::c;

const char* mole_status_text(int status) {
  switch (status) {
    case MOLE_OK:
      return "ok";
    case MOLE_SHAPE:
      return "shape";
    case MOLE_OPTION:
      return "option";
    case MOLE_FILE:
      return "file";
    case MOLE_CAPACITY:
      return "capacity";
    case MOLE_NOT_MERGEABLE:
      return "not mergeable";
    case MOLE_NOT_TRAINABLE:
      return "not trainable";
    case MOLE_ORDER:
      return "order of calls";
    case MOLE_UNKNOWN_ID:
      return "unknown id";
    case MOLE_DUPLICATE_ID:
      return "duplicate id";
    case MOLE_NULL_POINTER:
      return "null pointer";
    case MOLE_OUT_OF_MEMORY:
      return "out of memory";
    case MOLE_UNEXPECTED:
      return "unexpected";
  }
  return "unknown status";
}

const char* mole_last_error(void) {
  return last_error.data();
}

const char* mole_version(void) {
  static const std::string version = std::to_string(MOLE_VERSION_MAJOR) + "." + std::to_string(MOLE_VERSION_MINOR) +
                                     "." + std::to_string(MOLE_VERSION_PATCH);
  return version.c_str();
}
