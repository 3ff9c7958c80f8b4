// SPDX-License-Identifier: MIT
// unsaid(): does the sentence of a law say what it should?
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

namespace mole::test {

/// The first of `parts` that `sentence` does not hold, beside the sentence; "" where it holds all of them.
inline std::string unsaid(const std::string& sentence, std::initializer_list<std::string_view> parts) {
  for (std::string_view part : parts)
    if (sentence.find(part) == std::string::npos) return "'" + std::string(part) + "' in '" + sentence + "'";
  return "";
}

}  // namespace mole::test
