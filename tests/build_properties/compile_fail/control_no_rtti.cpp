// SPDX-License-Identifier: MIT
// flags: -fno-rtti
#include "parts.hpp"

int main() {
  mole::MixtureLinear layer{parts::router(), parts::gate(), parts::experts(), parts::base()};
  using Layer = decltype(layer);
  mole::AnyLinear<float> any(std::move(layer), 4);
  return any.target<Layer>() == nullptr;
}
