// SPDX-License-Identifier: MIT
// FileCursor: the numbers and texts of a binary file, one after the other.
#pragma once

#include "mole/io/file_error.hpp"

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

#include "mole/core/macros_off.hpp"

namespace mole::detail {

static_assert(std::endian::native == std::endian::little, "files: expected a little-endian machine");

/// Reads one thing after the other and throws Error(file), naming `source` and what was to come, rather than read
/// beyond the end.
class FileCursor {
 public:
  FileCursor(std::span<const std::byte> file, const std::string& source) : file_(file), source_(source) {}

  std::size_t at() const { return at_; }
  std::size_t left() const { return file_.size() - at_; }

  std::span<const std::byte> bytes(std::uint64_t count, const std::string& what) {
    if (count > left())
      throw file_error(source_, std::to_string(count) + " bytes of " + what,
                       std::to_string(left()) + " to the end of the file");
    const auto taken = file_.subspan(at_, std::size_t(count));
    at_ += taken.size();
    return taken;
  }
  template <class Number>
  Number number(const std::string& what) {
    Number number;
    std::memcpy(&number, bytes(sizeof number, what).data(), sizeof number);
    return number;
  }
  /// After its length in 8 bytes.
  std::string text(const std::string& what) {
    const auto length = number<std::uint64_t>("the length of " + what);
    const auto text = bytes(length, what);
    return {reinterpret_cast<const char*>(text.data()), text.size()};
  }

 private:
  std::span<const std::byte> file_;
  const std::string& source_;
  std::size_t at_ = 0;
};

}  // namespace mole::detail

#include "mole/core/macros_on.hpp"
