// SPDX-License-Identifier: MIT
// ReadReport: what became of the tensors of a file that was read.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Names, as the file has them. Of `missing`, what the file's own description promises and the file lacks; of
/// `refused`, what belongs to the format but is not served.
struct ReadReport {
  std::vector<std::string> used, unused, missing, refused;

  /// For people: "12 used; 1 unused: model.rope.inv_freq".
  std::string text() const {
    std::string text = std::to_string(used.size()) + " used";
    for (const auto& [what, names] : {std::pair<std::string_view, const std::vector<std::string>&>{"unused", unused},
                                      {"missing", missing},
                                      {"refused", refused}}) {
      if (names.empty()) continue;
      text += "; " + std::to_string(names.size()) + " " + std::string(what) + ": " + names.front();
      for (std::size_t i = 1; i < names.size() && i < 5; ++i) text += ", " + names[i];
      if (names.size() > 5) text += ", ...";
    }
    return text;
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
