// SPDX-License-Identifier: MIT
// distill_mixture(): one LoRA in place of a mixture, by how much each expert was used.
#pragma once

#include "mole/core/call.hpp"
#include "mole/core/randomized_svd.hpp"
#include "mole/surgery/adapters_of.hpp"
#include "mole/surgery/update_sum.hpp"

#include <optional>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole {

struct DistillOptions {
  Index rank = 8;              ///< of the LoRA
  double scale = 1;            ///< ... and its scale
  Index oversampling = 10;     ///< of randomized_svd()
  Index power_iterations = 4;  ///< of randomized_svd()
  std::uint64_t seed = 0;      ///< of randomized_svd()
};

/// What distill_mixture() returns. Errors are relative, Frobenius.
template <std::floating_point T>
struct DistilledMixture {
  Adapter<T> adapter;
  double error = 0;  ///< of its update, against the weighted sum: what its rank cannot hold
  /// Of its outputs for tokens, against what the experts add to them under the layer's own routing. Unset without
  /// tokens.
  std::optional<double> error_on_tokens = {};
  /// The same for the weighted sum of all ranks: what no single LoRA of this kind avoids, as it routes nothing.
  std::optional<double> error_of_sum_on_tokens = {};
};

namespace detail {

/// What the experts add to x under the layer's own routing.   [N x O]
template <class Layer>
Matrix<double> share_of_experts(const Layer& layer, View<const typename Layer::Scalar> x) {
  using T = typename Layer::Scalar;
  using Experts = std::remove_cvref_t<decltype(layer.experts())>;
  auto work = layer.workspace(x.rows());
  layer.route(x, work);
  OwnedScratch<Experts> scratch(
      layer.experts(),
      {.tokens = x.rows(), .pairs = std::max(work.routing.pairs(), x.rows()), .experts = layer.experts().experts()});
  Matrix<T> y(x.rows(), layer.out());
  const Pass pass;
  layer.experts().forward(x, View<const T>(), work.routing, y.view(), Call{layer.execution(), pass, *scratch});
  return converted<double>(View<const T>(y));
}

/// ||x S^T - y|| / ||y||
inline double error_of_outputs(const UpdateSum& sum, View<const double> x, const Matrix<double>& y) {
  Matrix<double> found(y.rows(), y.cols());
  sum.times(x, found.view());
  for (std::size_t k = 0; k < found.elements().size(); ++k) found.elements()[k] -= y.elements()[k];
  return ratio_of_norms(std::sqrt(inner(found, found)), std::sqrt(inner(y, y)));
}

}  // namespace detail

/// The LoRA of a given rank that is nearest to what the mixture adds on average:
///
///   scale B^T A ~ sum_e g_e s_e B_e^T A_e,   g_e = mass_e / tokens, the measured mean gate
///
///   layer: a MixtureLinear of LowRank experts; stats: RoutingStats of all its experts, over tokens like those to come
///   held_out [N x I]: tokens that the stats have not seen, or empty   ->   the LoRA, and its errors on them
///
/// By the randomized method from products with factors: no [O x I] is formed. A mixture gives each token experts of its
/// own, one LoRA the average to all: `error_of_sum_on_tokens` tells what that costs, and `error_on_tokens` what the
/// rank adds. Stats do not count shared experts of a trace: for those call stats.observe(work.routing, work.pass), with
/// one expert more in the stats for each. Throws Error(shape) for stats of other experts or other columns of held_out,
/// Error(option) for stats without tokens, a rank below 1 or a scale of 0.  O((power_iterations + 1) R (I + O) rank) of
/// R ranks, and O((I + O) R^2) for `error`: 8 s for 64 experts of rank 16, I = O = 4096.  Offline.
template <class Layer, class Stats>
requires requires(const Stats& stats) {
  stats.mass();
  stats.tokens();
  stats.experts();
}
DistilledMixture<typename Layer::Scalar> distill_mixture(const Layer& layer, const Stats& stats,
                                                         const DistillOptions& options,
                                                         View<const typename Layer::Scalar> held_out = {}) {
  using T = typename Layer::Scalar;
  constexpr std::string_view who = "distill_mixture";
  require_equal(ErrorCode::shape, "distill_mixture: experts of the stats", Index(layer.experts().experts()),
                stats.experts());
  require(stats.tokens() > 0, ErrorCode::option, who, ": expected stats of at least 1 token, found 0");
  require(options.rank >= 1, ErrorCode::option, who, ": expected a rank of at least 1, found ", options.rank);
  require(std::isfinite(options.scale) && options.scale != 0, ErrorCode::option, who,
          ": expected a scale other than 0, found ", options.scale);
  if (held_out) require_equal(ErrorCode::shape, "distill_mixture: columns of held_out", layer.in(), held_out.cols());

  const std::vector<Adapter<T>> experts = adapters_of(layer.experts());
  UpdateSum sum(layer.in(), layer.out());
  for (std::size_t e = 0; e < experts.size(); ++e) sum.add(stats.mass()[e] / double(stats.tokens()), experts[e]);
  Rng rng(options.seed);
  const Svd<double> leading = randomized_svd(
      sum.out(), sum.in(), [&](View<const double> x, View<double> y) { sum.times(x, y); },
      [&](View<const double> y, View<double> x) { sum.times_transposed(y, x); },
      {.rank = options.rank, .oversampling = options.oversampling, .power_iterations = options.power_iterations}, rng);

  DistilledMixture<T> distilled{detail::truncated<T>(leading, options.rank, options.scale)};
  distilled.error = detail::relative_error(distilled.adapter, sum);
  if (!held_out) return distilled;
  const Matrix<double> y = detail::share_of_experts(layer, held_out), x = detail::converted<double>(held_out);
  UpdateSum one(layer.in(), layer.out());
  one.add(1.0, distilled.adapter);
  distilled.error_on_tokens = detail::error_of_outputs(one, x, y);
  distilled.error_of_sum_on_tokens = detail::error_of_outputs(sum, x, y);
  return distilled;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
