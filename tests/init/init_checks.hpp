// SPDX-License-Identifier: MIT
// What the tests of all initializations share: experts, a weight, weight_of().
#pragma once

#include "core/error_code.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/dense_factors.hpp"
#include "support/catch.hpp"
#include "support/norms.hpp"
#include "support/random_matrix.hpp"

namespace init_checks {

using mole::Index;
using mole::Matrix;

constexpr Index in = 9, out = 12;
inline const Matrix<double> weight = support::random_matrix<double>(out, in, 1);

template <class T = double>
auto experts_of(Index ranks, double alpha = 6, Index experts = 1) {
  mole::Rng rng(2);
  return mole::LowRank<mole::DenseFactors<T>>({.in = in, .out = out, .experts = experts, .rank = ranks, .alpha = alpha},
                                              rng);
}

/// What a base of `residual` computes with under these experts, all of gate 1.
template <class Experts, class T>
Matrix<T> weight_of(const Experts& experts, const Matrix<T>& residual) {
  Matrix<T> sum = residual;
  for (Index e = 0; e < experts.experts(); ++e) experts.add_delta(e, 1, sum.view());
  return sum;
}

using support::difference;
using support::norm;

/// What all refuse alike: other sizes, an expert that does not exist, one A for all, each with nothing changed.
template <class Initialize>
void check_refusals(Initialize initialize) {
  const auto refused = [&](auto experts, const Matrix<double>& from, mole::ErrorCode code) {
    const Matrix<double> a = experts.parameters().lora_A, b = experts.parameters().lora_B;
    CHECK(mole::test::code_of([&] { initialize(experts, from); }) == code);
    CHECK(support::same_bits(experts.parameters().lora_A, a));
    CHECK(support::same_bits(experts.parameters().lora_B, b));
  };
  refused(experts_of(2), Matrix<double>(out, in + 1), mole::ErrorCode::shape);
  refused(experts_of(2), Matrix<double>(out + 1, in), mole::ErrorCode::shape);
  mole::Rng rng;
  refused(mole::LowRank<mole::DenseFactors<double>>(
              {.in = in, .out = out, .experts = 2, .rank = 2, .alpha = 4, .shared_down = true}, rng),
          weight, mole::ErrorCode::option);
  Matrix<double> broken = weight;
  broken(3, 4) = std::numeric_limits<double>::quiet_NaN();
  refused(experts_of(2), broken, mole::ErrorCode::option);
}

}  // namespace init_checks
