// SPDX-License-Identifier: MIT
// arrow_prototypes(): the direction of tokens that each expert answers most strongly, from its factors alone.
#pragma once

#include "mole/surgery/adapters_of.hpp"
#include "mole/surgery/update_sum.hpp"

#include <algorithm>
#include <cmath>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The first right singular vector of each expert's update B A, of length 1: the rows of a router that needs no
/// training.   [E x I]
///
/// Of v and -v, both right, it is that whose largest component is positive, so (A, B) and (-A, -B) have the same. An
/// expert whose update is 0 has a row of zeros: it answers nothing. If its first singular values are equal, the vector
/// is any in their space. [O x I] is never formed: O((I + O) r^2) per expert, in double; copies the factors.
/// Throws Error(option) for factors that are not finite.  Offline.
/// Source: Ostapenko et al. 2024 (Arrow), arXiv:2405.11157. Released in huggingface/peft, tuners/lora/arrow.py, which
/// takes 15 power iterations from a random vector and so leaves some of the second direction; this is exact.
template <class Experts>
auto arrow_prototypes(const Experts& experts) {
  using T = typename Experts::Scalar;
  Matrix<T> prototypes(experts.experts(), experts.in());
  const auto adapters = adapters_of(experts);
  for (Index e = 0; e < prototypes.rows(); ++e) {
    UpdateSum update(experts.in(), experts.out());
    update.add(1.0, adapters[std::size_t(e)].a.view(), adapters[std::size_t(e)].b.view());
    const Svd<double> svd = update.svd();
    if (svd.s.empty() || svd.s[0] == 0) continue;
    double largest = 0;
    for (Index i = 0; i < prototypes.cols(); ++i)
      if (std::abs(svd.v(i, 0)) > std::abs(largest)) largest = svd.v(i, 0);
    for (Index i = 0; i < prototypes.cols(); ++i) prototypes(e, i) = T(std::copysign(1.0, largest) * svd.v(i, 0));
  }
  return prototypes;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
