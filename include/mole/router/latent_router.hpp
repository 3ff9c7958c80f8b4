// SPDX-License-Identifier: MIT
// LatentRouter: the router of rank-wise experts that choose themselves.
#pragma once

#include "mole/core/error.hpp"
#include "mole/router/router_policy.hpp"

#include <span>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// logits = z + bias, with z = A x the experts' latent: an expert of one rank is wanted as strongly as it responds.
///
///   z [N x E], bias [E], logits [N x E]
///
/// The bias is state, not a parameter: it shifts which experts are chosen, never what they add. It gets no gradient,
/// starts at 0, and is written between calls by the code that balances the experts (SignBiasBalancer).
/// Throws Error(option) for less than 1 expert; forward() throws Error(shape) if experts have more than one rank.
/// Source: Zou et al. 2025 (FlyLoRA), arXiv:2510.08396, eq. 8-10.
template <class T>
class LatentRouter {
 public:
  using Scalar = T;
  static constexpr Reads reads = Reads::latent;

  explicit LatentRouter(Index experts) {
    require(experts >= 1, ErrorCode::option, "LatentRouter: expected at least 1 expert, found ", experts);
    bias_.assign(std::size_t(experts), T(0));
  }

  /// Adds `experts` entries with a bias of 0, for experts that grow.
  void append(Index experts) {
    require(experts >= 1, ErrorCode::option, "LatentRouter: expected at least 1 expert to append, found ", experts);
    bias_.resize(bias_.size() + std::size_t(experts), T(0));
  }

  Index outputs() const { return Index(bias_.size()); }
  std::span<T> bias() { return bias_; }
  std::span<const T> bias() const { return bias_; }

  template <class F>
  void for_each_state(F&& f) {
    f("bias", bias());
  }

  void forward(View<const T> z, View<T> logits) const {
    require_equal(ErrorCode::shape, "LatentRouter: ranks of the latent, one an expert", outputs(), z.cols());
    for (Index n = 0; n < z.rows(); ++n)
      for (Index e = 0; e < z.cols(); ++e) logits.row_data(n)[e] = z.row_data(n)[e] + bias_[std::size_t(e)];
  }

  /// d_z += d_logits
  void backward(View<const T>, View<const T> d_logits, View<T> d_z, NoParameters&, auto) const {
    if (!d_z) return;
    for (Index n = 0; n < d_z.rows(); ++n)
      for (Index e = 0; e < d_z.cols(); ++e) d_z.row_data(n)[e] += d_logits.row_data(n)[e];
  }

 private:
  std::vector<T> bias_;  // [E]
};

static_assert(TrainableRouterPolicy<LatentRouter<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
