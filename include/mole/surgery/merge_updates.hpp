// SPDX-License-Identifier: MIT
// merge_updates(): merges what adapters add, and keeps the leading ranks of it.
#pragma once

#include "mole/core/randomized_svd.hpp"
#include "mole/surgery/combination.hpp"
#include "mole/surgery/update_sum.hpp"

#include <optional>

#include "mole/core/macros_off.hpp"

namespace mole {

/// How updates are combined, and to what rank they are cut.
struct MergeUpdatesOptions {
  Index rank = 0;  ///< of the result; 0: the largest of the adapters'
  Combination combination = {};
  double scale = 1;  ///< of the result
  /// Unset: exact. Set: by randomized_svd(), where the exact decomposition would take too long.
  std::optional<Index> power_iterations = {};
  /// Numbers of B and A beyond this quantile of all of them are cut to it, and those below its negative.
  std::optional<double> clamp = {};
  bool scale_twice = false;  ///< f_i = w_i s_i^2: what the release computes
};

namespace detail {

/// The numbers of a and b cut to [-bound, bound], of their quantile `clamp`, between two neighbors if there is none.
template <class T>
void cut_to_quantile(Adapter<T>& adapter, double clamp) {
  std::vector<T> numbers(adapter.a.elements().begin(), adapter.a.elements().end());
  numbers.insert(numbers.end(), adapter.b.elements().begin(), adapter.b.elements().end());
  if (numbers.empty()) return;
  std::sort(numbers.begin(), numbers.end());
  const double place = clamp * double(numbers.size() - 1);
  const std::size_t below = std::size_t(place), above = std::min(below + 1, numbers.size() - 1);
  const double low = double(numbers[below]), high = double(numbers[above]);
  const T bound = T(low + (place - double(below)) * (high - low));
  // As the release does, also for a quantile below 0, where the lower bound is above the upper, which wins.
  for (Matrix<T>* m : {&adapter.a, &adapter.b})
    for (T& value : m->elements()) value = std::min(std::max(value, -bound), bound);
}

}  // namespace detail

/// The best approximation of a combination of updates by `rank` ranks:   scale B^T A ~ combination of s_i B_i^T A_i
///
///   adapters of any ranks, one I and one O   ->   an adapter of `rank` ranks; without `clamp`, rows of A that are not
///   0 are orthonormal, those of B orthogonal
///
/// The weighted sum (a combination without pruning and election) is decomposed from its factors, without an [O x I].
/// Pruning and signs are questions of single numbers of an update: then each is formed, in double. Ranks beyond those
/// of the sum are 0. `error` compares with the weighted sum of the whole updates: what truncation and the combination
/// take away.
///
/// Throws Error(option) for no adapter, a weight, scale, rank or density out of range, numbers in A or B that are not
/// finite, or a clamp outside [0, 1]; Error(shape) for other inputs or outputs.  O((I + O) R^2) and a small svd(), or a
/// svd() of [O x I].  Offline.
/// Source: huggingface/peft, add_weighted_adapter: "svd", "ties_svd", "dare_linear_svd", "dare_ties_svd",
/// "magnitude_prune_svd". The release counts the scale twice: scale_twice is that.
template <class T>
MergedAdapter<T> merge_updates(const std::vector<WeightedAdapter<T>>& adapters,
                               const MergeUpdatesOptions& options = {}) {
  constexpr std::string_view who = "merge_updates";
  detail::check_adapters(who, adapters, options.scale);
  options.combination.check(who);
  const Index rank = detail::rank_or_largest(who, "a rank", options.rank, adapters);
  if (options.clamp)
    require(*options.clamp >= 0 && *options.clamp <= 1, ErrorCode::option, who, ": expected a clamp in [0, 1], found ",
            *options.clamp);

  UpdateSum sum(adapters[0].in(), adapters[0].out());
  Matrix<double> dense;
  if (options.combination.linear()) {
    for (const auto& adapter : adapters)
      sum.add(adapter.factor() * (options.scale_twice ? adapter.scale : 1), adapter.a, adapter.b);
  } else {
    std::vector<Matrix<double>> updates;
    std::vector<double> weights;
    for (const auto& adapter : adapters) {
      UpdateSum update(adapter.in(), adapter.out());
      update.add(adapter.scale, adapter.a, adapter.b);
      updates.push_back(update.dense());
      weights.push_back(adapter.weight * (options.scale_twice ? adapter.scale : 1));
    }
    dense = detail::combined(std::move(updates), weights, options.combination);
  }
  const auto decomposed = [&] {
    if (!options.power_iterations) return options.combination.linear() ? sum.svd() : svd(dense);
    Rng rng(options.combination.seed);
    const RandomizedSvdOptions randomized{.rank = std::max<Index>(rank, 1),
                                          .power_iterations = *options.power_iterations};
    return randomized_svd(
        sum.out(), sum.in(),
        [&](View<const double> x, View<double> y) {
          options.combination.linear() ? sum.times(x, y) : copy<double>(detail::product_nt(x, dense), y);
        },
        [&](View<const double> y, View<double> x) {
          options.combination.linear() ? sum.times_transposed(y, x) : copy<double>(detail::product(y, dense), x);
        },
        randomized, rng);
  };
  Adapter<T> merged = detail::truncated<T>(decomposed(), rank, options.scale);
  if (options.clamp) detail::cut_to_quantile(merged, *options.clamp);
  return detail::with_error(std::move(merged), adapters);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
