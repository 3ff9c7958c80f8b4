// SPDX-License-Identifier: MIT
// search_weights(): weights of adapters for a new task, from values of a loss alone.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/random.hpp"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

struct SearchWeightsOptions {
  Index evaluations = 40;          ///< calls of the loss
  std::vector<double> start = {};  ///< empty: all 0
  double bound = 1.5;              ///< weights stay in [-bound, bound]
  double step = 0.3;               ///< standard deviation of the first steps, of each weight
  double l1 = 0.05;                ///< weighs the mean of |w|, added to the loss: unneeded adapters end near 0
};

/// What search_weights() returns: the best weights met, their loss with and without the l1 term.
struct SearchedWeights {
  std::vector<double> weights;
  double loss = 0, objective = 0;
};

/// Minimizes loss(w) + l1 mean|w| over w in [-bound, bound]^count without derivatives.
///
///   loss(std::span<const double> w [count]) -> a number; NaN counts as infinite
///
/// A step from the best weights so far is normal, in one weight and in all by turns; it is kept if it is no worse, and
/// then the next of its kind is longer by e^(1/3), else shorter by e^(-1/12): one success in five keeps the length.
/// Steps of all weights alone got stuck where the penalty has an edge, 2 % above the least objective of four weights.
/// For a few weights and tens of evaluations, each a run of a model with, say, merge_factors() under those weights. The
/// result is a function of the generator's state and of the loss. Throws Error(option) for evaluations or count
/// below 1, a bound or step that is not above 0, a negative l1, any of them infinite, or a start outside the bounds;
/// Error(shape) for a start of another size. Source: Huang et al. 2023 (LoRAHub), arXiv:2307.13269: start, bounds,
/// budget and penalty; the optimizer here is the (1+1) evolution strategy with the 1/5 rule (Rechenberg 1973) instead
/// of one from a library of them.
template <class Loss, std::uniform_random_bit_generator Generator>
SearchedWeights search_weights(Index count, Loss&& loss, const SearchWeightsOptions& options, Generator& generator) {
  require(count >= 1, ErrorCode::option, "search_weights: expected at least 1 weight, found ", count);
  require(options.evaluations >= 1, ErrorCode::option, "search_weights: expected at least 1 evaluation, found ",
          options.evaluations);
  const bool finite = std::isfinite(options.bound) && std::isfinite(options.step) && std::isfinite(options.l1);
  require(finite && options.bound > 0 && options.step > 0 && options.l1 >= 0, ErrorCode::option,
          "search_weights: expected finite bound and step above 0 and l1 of at least 0, found ", options.bound, ", ",
          options.step, " and ", options.l1);
  std::vector<double> start = options.start.empty() ? std::vector<double>(std::size_t(count)) : options.start;
  require_equal(ErrorCode::shape, "search_weights: weights to start at", count, Index(start.size()));
  for (const double w : start)
    require(std::abs(w) <= options.bound, ErrorCode::option, "search_weights: expected a start within ", options.bound,
            ", found ", w);
  const auto evaluated = [&](std::vector<double> weights) {
    const double value = double(loss(std::span<const double>(weights)));
    double sum = 0;
    for (const double w : weights) sum += std::abs(w);
    return SearchedWeights{std::move(weights), value, value + options.l1 * sum / double(count)};
  };
  SearchedWeights best = evaluated(std::move(start));
  double steps[] = {options.step, options.step};  // of all weights, of one
  for (Index i = 1; i < options.evaluations; ++i) {
    std::vector<double> weights = best.weights;
    double& step = steps[i % 2];
    const std::size_t one = std::size_t(unit_interval(generator()) * double(count));
    for (std::size_t j = 0; j < weights.size(); ++j)
      if (const double moved = weights[j] + step * standard_normal(generator); i % 2 == 0 || j == one)
        weights[j] = std::clamp(moved, -options.bound, options.bound);
    SearchedWeights next = evaluated(std::move(weights));
    const bool no_worse = next.objective <= best.objective || std::isnan(best.objective);
    step *= std::exp(no_worse ? 1.0 / 3 : -1.0 / 12);
    if (no_worse) best = std::move(next);
  }
  return best;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
