// SPDX-License-Identifier: MIT
// merge_factors(): merges the As and the Bs of adapters of one rank, each by itself.
#pragma once

#include "mole/surgery/combination.hpp"
#include "mole/surgery/update_sum.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// How factors are combined.
struct MergeFactorsOptions {
  Combination combination = {};
  double scale = 1;  ///< of the result
};

/// A = combination of the A_i under sign(f_i) sqrt|f_i|,  B = combination of the B_i under sqrt|f_i|,
/// f_i = w_i s_i / scale
///
///   adapters of one rank, I and O   ->   an adapter of that rank
///
/// Cheap, and the rank stays, but a product of sums is not a sum of products: B^T A has terms B_i^T A_j of different
/// adapters, so that this is the weighted sum of updates for one adapter alone. Two copies with weights 1/2 give twice
/// the update. `error` tells how far off it is; merge_updates() has no such terms. One adapter of weight 1 is itself,
/// bit for bit, under its own scale and without pruning.
///
/// Throws Error(option) for no adapter, a weight or scale that is no number, a scale of 0, numbers in A or B that are
/// not finite, or a density outside (0, 1]; Error(shape) for other inputs, outputs or ranks.  O(adapters r (I + O)) and
/// the cost of the error.  Offline.
/// Source: huggingface/peft, add_weighted_adapter: "linear", "ties", "dare_linear", "dare_ties", "magnitude_prune".
template <class T>
MergedAdapter<T> merge_factors(const std::vector<WeightedAdapter<T>>& adapters,
                               const MergeFactorsOptions& options = {}) {
  detail::check_adapters("merge_factors", adapters, options.scale);
  options.combination.check("merge_factors");
  std::vector<Matrix<double>> a, b;
  std::vector<double> of_a, of_b;
  for (std::size_t i = 0; i < adapters.size(); ++i) {
    require(adapters[i].rank() == adapters[0].rank(), ErrorCode::shape, "merge_factors: rank of adapter ", i,
            ": expected ", adapters[0].rank(), ", found ", adapters[i].rank(),
            "; different ranks are for concatenate_adapters or merge_updates");
    a.push_back(detail::converted<double>(adapters[i].a));
    b.push_back(detail::converted<double>(adapters[i].b));
    const double factor = adapters[i].factor() / options.scale;
    of_b.push_back(std::sqrt(std::abs(factor)));
    of_a.push_back(std::copysign(of_b.back(), factor));
  }
  const Matrix<double> merged_a = detail::combined(std::move(a), of_a, options.combination, 0);
  const Matrix<double> merged_b = detail::combined(std::move(b), of_b, options.combination, 1);
  Adapter<T> merged{detail::converted<T>(merged_a.view()), detail::converted<T>(merged_b.view()), options.scale};
  return detail::with_error(std::move(merged), adapters);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
