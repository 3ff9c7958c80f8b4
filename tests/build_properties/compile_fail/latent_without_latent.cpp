// SPDX-License-Identifier: MIT
// expect: the Router reads the experts' latent, but Experts do not model LatentExpertPolicy
// (mole/expert/expert_policy.hpp)
#include "parts.hpp"

struct LatentReader : parts::InferenceRouter {
  static constexpr mole::Reads reads = mole::Reads::latent;
};
struct Silent {
  using Scalar = float;
  mole::Index experts() const { return 2; }
  mole::Index in() const { return 3; }
  mole::Index out() const { return 2; }
  void forward(mole::View<const float>, mole::View<const float>, const mole::Routing<float>&, mole::View<float>,
               auto) const {}
};

int main() {
  mole::MixtureLinear layer{LatentReader{}, parts::gate(), Silent{}, parts::base()};
}
