// SPDX-License-Identifier: MIT
// Site: the linear layers of a block of the encoder.
#pragma once

#include <array>
#include <string_view>

namespace encoder {

enum class Site { query, key, value, output, up, down };

inline constexpr std::array<Site, 6> sites{Site::query, Site::key, Site::value, Site::output, Site::up, Site::down};

/// Within a block, as checkpoints call it.
constexpr std::string_view name_of(Site site) {
  constexpr std::array<std::string_view, 6> names{"attention.self.query", "attention.self.key",
                                                  "attention.self.value", "attention.output.dense",
                                                  "intermediate.dense",   "output.dense"};
  return names[std::size_t(site)];
}

}  // namespace encoder
