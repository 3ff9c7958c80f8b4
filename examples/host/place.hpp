// SPDX-License-Identifier: MIT
#pragma once

// The four places of a block that hold a linear layer.

#include <array>
#include <string_view>

namespace host {

enum class Place { qkv, o, up, down };

inline constexpr std::array<Place, 4> places{Place::qkv, Place::o, Place::up, Place::down};

constexpr std::string_view name(Place place) {
  constexpr std::array<std::string_view, 4> names{"qkv", "o", "up", "down"};
  return names[static_cast<std::size_t>(place)];
}

}  // namespace host
