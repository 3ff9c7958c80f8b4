// SPDX-License-Identifier: MIT
// The laws of a role, run on a selection of one's own, with a mistake and without.
#include <mole/mole.hpp>
#include <mole/testing/gating_laws.hpp>
#include <mole/testing/select_laws.hpp>

#include <iostream>

/// The best two experts; with `worst_first` it hands them over in the wrong order.
struct BestTwo {
  bool worst_first = false;

  mole::Index max_chosen(mole::Index) const { return 2; }
  template <class T>
  mole::Index select(std::span<const T> scores, mole::Index experts, std::span<int> chosen) const {
    mole::choose_best(scores, experts, chosen);
    if (worst_first) std::swap(chosen[0], chosen[1]);
    return 2;
  }
};
static_assert(mole::SelectPolicy<BestTwo, float>);

int main() {
  const std::string broken = mole::laws::broken_select_law<float>(BestTwo{}, 8);
  if (!broken.empty()) std::cout << broken << "\n";

  const std::string mistake = mole::laws::broken_select_law<float>(BestTwo{.worst_first = true}, 8);
  std::cout << mistake << "\n";

  const mole::Gate gate{mole::Softmax{}, BestTwo{}, mole::Renormalized{}};
  const std::string as_gate = mole::laws::broken_gating_law<float>(gate, 8);
  return broken.empty() && !mistake.empty() && as_gate.empty() ? 0 : 1;
}
