// SPDX-License-Identifier: MIT
// expect: Select does not model SelectPolicy (mole/gating/select/select_policy.hpp)
#include "parts.hpp"

struct Choiceless {
  mole::Index max_chosen(mole::Index experts) const { return experts; }
};

int main() {
  mole::MixtureLinear layer{parts::router(), mole::Gate{mole::Softmax{}, Choiceless{}, mole::Raw{}}, parts::experts(),
                            parts::base()};
  auto work = layer.workspace(4);
  mole::Matrix<float> x(4, 3), y(4, 2);
  layer.forward(x, y, work);
}
