// SPDX-License-Identifier: MIT
#pragma once

// A short name for some text, which changes when the text does.

#include <cstdint>
#include <cstdio>
#include <span>
#include <string>

#include "text/domain.hpp"

namespace text {

/// Sixteen hexadecimal digits of the training text of `domains`.
inline std::string fingerprint(std::span<const Domain> domains) {
  std::uint64_t hash = 0;
  for (const Domain& domain : domains)
    for (const std::uint8_t byte : domain.train) hash = (hash ^ byte) * 0x100000001b3u;
  char digits[20];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(hash));
  return digits;
}

}  // namespace text
