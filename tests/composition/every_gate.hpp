// SPDX-License-Identifier: MIT
// every_gate(): every Score with every Select and every Weigh.
#pragma once

#include "composition/any_gate.hpp"

#include <array>
#include <string>
#include <vector>

namespace composition {

/// The number of experts that the parts of every_gate() are made for.
inline constexpr mole::Index gate_experts = 4;

/// Three parts that make a gate.
struct NamedGate {
  std::string name;
  AnyGate gate;
  bool whole_call;              ///< Score or Select looks at all tokens of the call
  bool gradient_is_derivative;  ///< false where a weighing hands on another gradient, by intention
  bool not_negative;            ///< Is no gate below 0?
};

/// Three parts that make none.
struct NoGate {
  std::string name, reason;
};

/// Parts of the table by what their scores are, or ask of scores: of any sign, not negative, probabilities, and
/// probabilities with a threshold.
using CountsOfKinds = std::array<std::size_t, 4>;

struct EveryGate {
  std::vector<NamedGate> gates;
  std::vector<NoGate> others;
  CountsOfKinds scores{}, selects{}, weighs{};
  std::size_t may_divide_by_zero = 0;  ///< pairs of a Select and a Weigh that divides by what the Select may leave out
  std::size_t would_count_a_column = 0;  ///< gates of a Weigh that reads all scores and a Score with one more column
};

EveryGate every_gate();

}  // namespace composition
