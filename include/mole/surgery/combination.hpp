// SPDX-License-Identifier: MIT
// Combination: how tensors of several tasks become one: what each keeps, which signs count, and the sum.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/random.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string_view>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Which numbers of its tensor a task keeps.
enum class Pruning {
  none,       ///< all
  magnitude,  ///< the floor(density * size) largest by magnitude, of equal ones the first
  random,     ///< each with probability `density`: DARE
};

/// Which sign counts at a place, among the tasks that keep a number there.
enum class SignElection {
  none,       ///< both: the weighted sum
  total,      ///< that of the sum of the numbers, without weights; 0 counts as +
  frequency,  ///< that of most numbers; + if there are as many of both
};

/// Three independent choices, of which the published rules are compositions:
///
///   | rule                           | pruning   | signs                |
///   | ------------------------------ | --------- | -------------------- |
///   | linear, "task arithmetic"      | none      | none                 |
///   | magnitude pruning              | magnitude | none                 |
///   | TIES                           | magnitude | total (or frequency) |
///   | DARE                           | random    | none                 |
///   | DARE with TIES                 | random    | total (or frequency) |
///
/// Without an election of signs the result is sum_i w_i t_i of what is kept; with one, the sum of w_i t_i over those
/// t_i that have the elected sign, divided by their number.
/// Source: Yadav et al. 2023 (TIES), arXiv:2306.01708; Yu et al. 2023 (DARE), arXiv:2311.03099; huggingface/peft,
/// merge_utils.py, whose DARE computes the division by the density and drops it: rescale = false is that.
struct Combination {
  Pruning pruning = Pruning::none;
  double density = 1;  ///< share that is kept, in (0, 1]
  SignElection signs = SignElection::none;
  bool rescale = true;     ///< random pruning divides what it keeps by the density: the expected sum stays
  std::uint64_t seed = 0;  ///< of random pruning: equal seeds drop the same numbers, on every platform

  /// Is it the weighted sum of whole tensors?
  bool linear() const { return (pruning == Pruning::none || density == 1) && signs == SignElection::none; }

  void check(std::string_view who) const {
    require(density > 0 && density <= 1, ErrorCode::option, who, ": expected a density in (0, 1], found ", density);
  }
};

namespace detail {

inline void keep_largest(Matrix<double>& tensor, double density) {
  const auto numbers = tensor.elements();
  std::vector<std::size_t> order(numbers.size());
  std::iota(order.begin(), order.end(), std::size_t(0));
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t i, std::size_t j) { return std::abs(numbers[i]) > std::abs(numbers[j]); });
  for (std::size_t i = std::size_t(density * double(numbers.size())); i < order.size(); ++i) numbers[order[i]] = 0;
}

/// The mask is a function of (seed, stream, place).
inline void keep_at_random(Matrix<double>& tensor, const Combination& how, std::uint64_t stream) {
  const std::uint64_t key = mix_bits(mix_bits(how.seed) ^ stream);
  for (std::size_t i = 0; i < tensor.elements().size(); ++i) {
    double& number = tensor.elements()[i];
    if (unit_interval(mix_bits(key ^ std::uint64_t(i))) >= how.density)
      number = 0;
    else if (how.rescale)
      number /= how.density;
  }
}

/// +1 or -1 at a place.
inline double elected_sign(const std::vector<Matrix<double>>& tensors, std::size_t place, SignElection signs) {
  double sum = 0;
  for (const auto& tensor : tensors) {
    const double number = tensor.elements()[place];
    sum += signs == SignElection::total ? number : double(number > 0) - double(number < 0);
  }
  return sum >= 0 ? 1 : -1;
}

/// What `tensors`, all of one shape, become under weights. Tensor i draws with stream first_stream + 2 i.
inline Matrix<double> combined(std::vector<Matrix<double>> tensors, const std::vector<double>& weights,
                               const Combination& how, std::uint64_t first_stream = 0) {
  for (std::size_t i = 0; i < tensors.size() && how.density < 1; ++i) {
    if (how.pruning == Pruning::magnitude) keep_largest(tensors[i], how.density);
    if (how.pruning == Pruning::random) keep_at_random(tensors[i], how, first_stream + 2 * i);
  }
  Matrix<double> result(tensors.front().rows(), tensors.front().cols());
  for (std::size_t place = 0; place < result.elements().size(); ++place) {
    double& sum = result.elements()[place];
    if (how.signs == SignElection::none) {
      sum = weights[0] * tensors[0].elements()[place];  // not 0 + it, which loses the sign of a zero
      for (std::size_t i = 1; i < tensors.size(); ++i) sum += weights[i] * tensors[i].elements()[place];
      continue;
    }
    const double sign = elected_sign(tensors, place, how.signs);
    int agreeing = 0;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const double number = tensors[i].elements()[place];
      if (sign * number <= 0) continue;
      sum += weights[i] * number;
      ++agreeing;
    }
    sum /= std::max(agreeing, 1);
  }
  return result;
}

}  // namespace detail

}  // namespace mole

#include "mole/core/macros_on.hpp"
