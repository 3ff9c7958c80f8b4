// SPDX-License-Identifier: MIT
// orthogonality(): keeps the rows of A and B of each expert orthonormal.
#pragma once

#include "mole/core/matrix.hpp"
#include "mole/core/rank/rank_blocks.hpp"
#include "mole/loss/coefficient.hpp"

#include <cmath>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

struct OrthogonalityOptions {
  double coefficient = 0.5;  ///< divide it by the number of layers for the release's mean over all matrices
};

namespace detail {
/// || P P^T - 1 ||, and, where it is wanted, d_p += weight * its gradient, 2 (P P^T - 1) P / || P P^T - 1 ||.
template <class T>
double distance_from_orthonormal(View<const T> p, double weight, View<T> d_p) {
  Matrix<double> gram(p.rows(), p.rows());
  double square = 0;
  for (Index i = 0; i < p.rows(); ++i)
    for (Index j = 0; j < p.rows(); ++j) {
      double sum = i == j ? -1 : 0;
      for (Index c = 0; c < p.cols(); ++c) sum += double(p(i, c)) * double(p(j, c));
      gram(i, j) = sum;
      square += sum * sum;
    }
  const double norm = std::sqrt(square);
  if (!d_p || norm == 0) return norm;
  for (Index i = 0; i < p.rows(); ++i)
    for (Index j = 0; j < p.rows(); ++j) {
      const T factor = T(2 * weight * gram(i, j) / norm);
      for (Index c = 0; c < p.cols(); ++c) d_p(i, c) += factor * p(j, c);
    }
  return norm;
}
}  // namespace detail

/// coefficient * mean over the A and B of all experts of || P P^T - 1 ||, the Frobenius norm, not squared, with the
/// rank-major A and B for P: rows of an expert are asked to be orthonormal.
///
///   parameters   of factors with lora_A [ranks x I] and lora_B [ranks x O], such as TripletFactors, DenseFactors
///   gradients    of the same type; added to, but for frozen ones
///
/// O(ranks of an expert) times the number of parameters; allocates [r x r]. Where a matrix is orthonormal already it
/// has no gradient. Throws Error(option) for a coefficient that is no finite number. Source: Zhang et al. 2023
/// (AdaLoRA), arXiv:2303.10512, eq. 4, there squared; huggingface/peft, tuners/adalora/model.py, not squared.
template <class Parameters>
double orthogonality(const RankBlocks& blocks, const Parameters& parameters, Parameters& gradients,
                     const OrthogonalityOptions& options = {}) {
  detail::require_coefficient("orthogonality", options.coefficient);
  require_equal(ErrorCode::shape, "orthogonality: rows of A", blocks.ranks_down(), parameters.lora_A.rows());
  require_equal(ErrorCode::shape, "orthogonality: rows of B", blocks.ranks_up(), parameters.lora_B.rows());
  for (const auto& [p, d_p] : {std::pair{&parameters.lora_A, &std::as_const(gradients).lora_A},
                               {&parameters.lora_B, &std::as_const(gradients).lora_B}})
    require(d_p->empty() || (d_p->rows() == p->rows() && d_p->cols() == p->cols()), ErrorCode::shape,
            "orthogonality: expected gradients [", p->rows(), " x ", p->cols(), "], found [", d_p->rows(), " x ",
            d_p->cols(), "]");
  const Index matrices = (blocks.shared_down() ? 1 : blocks.experts()) + blocks.experts();
  const double weight = options.coefficient / double(matrices);
  double sum = 0;
  const auto add = [&](const auto& p, auto& d_p, Index first, Index rows) {
    auto wanted = d_p.empty() ? d_p.view() : d_p.view().middle_rows(first, rows);
    sum += detail::distance_from_orthonormal(p.view().middle_rows(first, rows), weight, wanted);
  };
  if (blocks.shared_down()) add(parameters.lora_A, gradients.lora_A, 0, blocks.ranks_down());
  for (Index e = 0; e < blocks.experts(); ++e) {
    if (!blocks.shared_down()) add(parameters.lora_A, gradients.lora_A, blocks.down(e), blocks.size(e));
    add(parameters.lora_B, gradients.lora_B, blocks.up(e), blocks.size(e));
  }
  return weight * sum;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
