// SPDX-License-Identifier: MIT
// every_gate(): every Score with every Select and every Weigh.
#pragma once

#include "composition/any_gate.hpp"

#include <string>
#include <vector>

namespace composition {

/// The number of experts that the parts of every_gate() are made for.
inline constexpr mole::Index gate_experts = 4;

/// Three parts that make a gate.
struct NamedGate {
  std::string name;
  AnyGate gate;
  bool whole_call;              ///< Select looks at all tokens of the call
  bool gradient_is_derivative;  ///< false where a weighing hands on another gradient, by intention
};

/// Three parts that make none.
struct NoGate {
  std::string name, reason;
};

struct EveryGate {
  std::vector<NamedGate> gates;
  std::vector<NoGate> others;
};

EveryGate every_gate();

}  // namespace composition
