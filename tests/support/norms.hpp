// SPDX-License-Identifier: MIT
// norm(), difference(): Frobenius norms of small matrices.
#pragma once

#include "mole/core/matrix.hpp"

#include <cmath>

namespace support {

inline double norm(const mole::Matrix<double>& m) {
  double squares = 0;
  for (double element : m.elements()) squares += element * element;
  return std::sqrt(squares);
}

/// a - b, of equal sizes.
inline mole::Matrix<double> difference(const mole::Matrix<double>& a, const mole::Matrix<double>& b) {
  mole::Matrix<double> result = a;
  for (std::size_t i = 0; i < b.elements().size(); ++i) result.elements()[i] -= b.elements()[i];
  return result;
}

}  // namespace support
