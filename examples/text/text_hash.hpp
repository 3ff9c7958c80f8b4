// SPDX-License-Identifier: MIT
// text_hash(): a number for a text, the same on every machine (FNV-1a, scattered).
#pragma once

#include <cstdint>
#include <string_view>

#include "host/random.hpp"

namespace text {

inline std::uint64_t text_hash(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : text) hash = (hash ^ static_cast<std::uint8_t>(c)) * 0x100000001b3u;
  return host::mix(hash);
}

}  // namespace text
