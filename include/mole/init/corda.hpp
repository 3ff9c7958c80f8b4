// SPDX-License-Identifier: MIT
// corda_init(): the directions of the weight that matter most, or least, to given inputs become the adapter.
#pragma once

#include "mole/core/svd.hpp"
#include "mole/init/lora_experts.hpp"

#include <cmath>
#include <string_view>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Which directions CorDA takes.
enum class CordaMode {
  instruction,  ///< the first: of most weight for the inputs (ipm)
  knowledge,    ///< the last: training leaves alone what the inputs need (kpm)
};

/// Which expert starts, and from what.
struct CordaOptions {
  Index expert = 0;
  CordaMode mode = CordaMode::instruction;
};

namespace detail {

struct DampedInverse {
  Matrix<double> damped, inverse;
};

/// C' and C'^-1, as corda_init() says.
inline DampedInverse damped_inverse(std::string_view who, const Matrix<double>& covariance) {
  double mean = 0;
  for (Index i = 0; i < covariance.rows(); ++i) mean += covariance(i, i) / double(covariance.rows());
  for (double damping = 0.01; damping < 1e6; damping *= 2) {
    Matrix<double> damped = covariance;
    for (Index i = 0; i < damped.rows(); ++i) damped(i, i) += damping * mean;
    Svd<double> all = svd(damped);  // C'^-1 = V diag(1/s) U^T
    if (all.s.empty() || all.s.back() <= 0) continue;
    for (Index i = 0; i < all.v.rows(); ++i)
      for (Index j = 0; j < all.v.cols(); ++j) all.v(i, j) /= all.s[std::size_t(j)];
    Matrix<double> inverse = product_nt(all.v, all.u);
    Matrix<double> off = product(damped, inverse);
    for (Index i = 0; i < off.rows(); ++i) off(i, i) -= 1;
    if (std::sqrt(inner(off, off)) < 0.05) return {std::move(damped), std::move(inverse)};
  }
  fail(ErrorCode::option, {who, ": expected a covariance that damping makes invertible, found a singular one"});
}

}  // namespace detail

/// With C' = C + d mean(diag C) 1, weight C' = U diag(sigma) V^T, and r ranks of scale s:   B = U_r sqrt(sigma_r / s),
/// A = sqrt(sigma_r / s) V_r^T C'^-1,   residual = weight - s B A.
///
///   weight, residual [O x I]; they may be the same memory, and an empty residual is not wanted
///   covariance C [I x I] of the inputs, such as x^T x over many tokens
///
/// The damping d starts at 0.01, and doubles while C' times its inverse is 0.05 or more off the identity (Frobenius).
/// A base of the residual, with this adapter, computes what a base of the weight does, up to rounding. Ranks beyond
/// min(O, I) become 0. Throws Error(shape) for other sizes, Error(option) for a scale of 0 or less, numbers that are
/// not finite, or a covariance that no damping of up to 1e6 makes invertible; then nothing has changed. Cost: svd() of
/// C' for each damping tried, and of the weight.
/// Source: Yang et al. 2024 (CorDA), arXiv:2406.05223; huggingface/peft, tuners/lora/corda.py.
template <LoraExperts Experts>
void corda_init(Experts& experts, View<const typename Experts::Scalar> weight,
                View<const typename Experts::Scalar> covariance, View<typename Experts::Scalar> residual,
                const CordaOptions& options = {}) {
  detail::require_fits("corda_init", experts, options.expert, weight, residual);
  require(covariance.rows() == experts.in() && covariance.cols() == experts.in(), ErrorCode::shape,
          "corda_init: expected a covariance of [", experts.in(), " x ", experts.in(), "], found [", covariance.rows(),
          " x ", covariance.cols(), "]");
  const double scale = detail::positive_scale("corda_init", experts, options.expert);
  const auto [damped, inverse] = detail::damped_inverse("corda_init", detail::converted<double>(covariance));
  Svd<double> all = svd(detail::product(detail::converted<double>(weight), damped));
  all.v = detail::transposed(detail::product(detail::transposed(all.v), inverse));  // rows of V^T C'^-1
  const Index ranks = experts.blocks().size(options.expert);
  const Index unused = options.mode == CordaMode::knowledge ? std::max<Index>(0, Index(all.s.size()) - ranks) : 0;
  detail::set_directions(experts, options.expert, all, scale, unused);
  detail::write_residual(experts, options.expert, options.expert + 1, 1, weight, residual);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
