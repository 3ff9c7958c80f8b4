// SPDX-License-Identifier: MIT
// The laws of weighings, for every weighing of the library and a user's own.
#pragma once

#include "mole/gating/weigh/weigh_policy.hpp"
#include "mole/testing/central_differences.hpp"
#include "mole/testing/first_failure.hpp"
#include "mole/testing/random_matrix.hpp"

#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole::laws {

/// What to try a weighing with, and what it does not promise.
struct WeighLawOptions {
  Index columns = 6;  ///< scores of a token, with those behind the experts
  std::vector<int> chosen = {4, 0, 1};
  double tolerance = 1e-8;             ///< of the gradient, against central differences
  bool gradient_is_derivative = true;  ///< false where another gradient is passed on by intention
  std::uint64_t seed = 53;
};

namespace detail {
/// Calls one weighing, with the pass where it takes one.
template <class T, class Weigh>
struct WeighCalls {
  const Weigh& weigh;
  const std::vector<int>& chosen;
  Pass pass;

  std::vector<T> gates(const std::vector<T>& scores, T before = T(99)) const {
    std::vector<T> result(chosen.size(), before);
    const std::span<const T> in(scores);
    if constexpr (requires { weigh.forward(in, std::span<const int>(chosen), std::span<T>(result), pass); })
      weigh.forward(in, std::span<const int>(chosen), std::span<T>(result), pass);
    else
      weigh.forward(in, std::span<const int>(chosen), std::span<T>(result));
    return result;
  }

  /// d_scores that began at `before`.
  std::vector<T> d_scores(const std::vector<T>& scores, const std::vector<T>& d_gates, T before) const {
    const std::vector<T> made = gates(scores);
    std::vector<T> result(scores.size(), before);
    const std::span<const T> in(scores), of(made), d(d_gates);
    if constexpr (requires { weigh.backward(in, std::span<const int>(chosen), of, d, std::span<T>(result), pass); })
      weigh.backward(in, std::span<const int>(chosen), of, d, std::span<T>(result), pass);
    else
      weigh.backward(in, std::span<const int>(chosen), of, d, std::span<T>(result));
    return result;
  }
};

template <class T, class Weigh>
void expect_gates(FirstFailure& failure, const WeighCalls<T, Weigh>& calls, const std::vector<T>& scores,
                  const char* which) {
  const auto gates = calls.gates(scores, T(99)), again = calls.gates(scores, T(-99));
  for (std::size_t j = 0; j < gates.size(); ++j) {
    failure.expect(std::isfinite(gates[j]), which, ": expected a finite gate ", j, ", found ", gates[j]);
    failure.expect(gates[j] == again[j], which, ": expected gate ", j, " to be overwritten, found ", gates[j],
                   " over 99 and ", again[j], " over -99");
    if constexpr (requires { calls.weigh.constant_gate(); })
      failure.expect(gates[j] == T(calls.weigh.constant_gate()), which,
                     ": expected constant_gate() = ", calls.weigh.constant_gate(), " as gate ", j, ", found ",
                     gates[j]);
  }
}

/// Scores of -infinity: of one chosen expert after the other, and of all.
template <class T, class Weigh>
void expect_excluded_gates(FirstFailure& failure, const WeighCalls<T, Weigh>& calls, const std::vector<T>& scores,
                           const std::vector<T>& d_gates) {
  const auto ordinary = calls.gates(scores);
  std::vector<T> others = scores;
  for (T& score : others) score += T(0.25) + score;
  for (std::size_t excluded = 0; excluded <= calls.chosen.size(); ++excluded) {
    std::vector<T> some = scores;
    for (std::size_t j = 0; j < calls.chosen.size(); ++j)
      if (j == excluded || excluded == calls.chosen.size())
        some[std::size_t(calls.chosen[j])] = -std::numeric_limits<T>::infinity();
    expect_gates(failure, calls, some, "scores of -infinity");
    const auto gates = calls.gates(some), d_scores = calls.d_scores(some, d_gates, T(0));
    // Where scores make no difference to gates, neither does exclusion.
    if (gates == ordinary && calls.gates(others) == ordinary) continue;
    for (std::size_t j = 0; j < calls.chosen.size(); ++j) {
      const int e = calls.chosen[j];
      failure.expect(std::isfinite(d_scores[std::size_t(e)]),
                     "scores of -infinity: expected a finite gradient of score ", e, ", found ",
                     d_scores[std::size_t(e)]);
      if (j != excluded && excluded != calls.chosen.size()) continue;
      failure.expect(gates[j] == 0, "expected gate 0 of expert ", e, " with a score of -infinity, found ", gates[j]);
      failure.expect(d_scores[std::size_t(e)] == 0, "expected gradient 0 of expert ", e,
                     " with a score of -infinity, found ", d_scores[std::size_t(e)]);
    }
  }
}

template <class T, class Weigh>
void expect_gradient(FirstFailure& failure, const WeighCalls<T, Weigh>& calls, std::vector<T> scores,
                     const std::vector<T>& d_gates, const WeighLawOptions& options) {
  const auto from_zero = calls.d_scores(scores, d_gates, T(0));
  auto gradient = calls.d_scores(scores, d_gates, T(0.5));
  for (std::size_t e = 0; e < gradient.size(); ++e) {
    gradient[e] -= T(0.5);
    const T slack = 100 * std::numeric_limits<T>::epsilon() * std::max(T(1), std::abs(from_zero[e]));
    failure.expect(std::abs(gradient[e] - from_zero[e]) <= slack, "expected d_scores to accumulate, 0.5 and ",
                   from_zero[e], " for score ", e, ", found 0.5 and ", gradient[e]);
    if constexpr (!weigh_has_gradient<Weigh>)
      failure.expect(from_zero[e] == 0, "weigh_has_gradient is false: expected backward to add nothing, found ",
                     from_zero[e], " for score ", e);
  }
  if constexpr (std::is_same_v<T, double>) {
    if (!options.gradient_is_derivative) return;
    const auto value = [&] {
      const auto gates = calls.gates(scores);
      double sum = 0;
      for (std::size_t j = 0; j < gates.size(); ++j) sum += gates[j] * d_gates[j];
      return sum;
    };
    const double error = gradient_error(scores, gradient, value, 1e-6);
    failure.expect(error < options.tolerance, "expected backward to add the derivative to d_scores, within ",
                   options.tolerance, ", found a difference of ", error);
  }
}
}  // namespace detail

/// The first law that a weighing breaks, in words; "" where it keeps them.
///
/// In training and inference: gates are finite and overwritten, and those of constant_gate(), where it has that; an
/// expert with a score of -infinity gets gate 0 and gradient 0 where gates depend on scores; backward accumulates, and
/// is the derivative (in double), or nothing where weigh_has_gradient is false. Scores are from 0.1 to 1.1.  Throws
/// what weigh.check(experts) throws.
///
///     static_assert(mole::WeighPolicy<MyWeigh, double>);
///     assert(mole::laws::broken_weigh_law(MyWeigh{}) == "");
template <class T = double, class Weigh>
std::string broken_weigh_law(const Weigh& weigh, const WeighLawOptions& options = {}) {
  static_assert(WeighPolicy<Weigh, T>);
  if constexpr (requires { weigh.check(options.columns); }) weigh.check(options.columns);
  const std::string subject = "weighing of " + std::to_string(options.chosen.size()) + " of " +
                              std::to_string(options.columns) + " scores, seed " + std::to_string(options.seed);
  const auto random = random_matrix<T>(1, options.columns, options.seed),
             upstream = random_matrix<T>(1, Index(options.chosen.size()), options.seed + 1);
  std::vector<T> scores;
  for (T number : random.elements()) scores.push_back(std::abs(number) + T(0.1));
  const std::vector<T> d_gates(upstream.elements().begin(), upstream.elements().end());
  for (bool training : {false, true}) {
    FirstFailure failure(subject + (training ? ", training" : ", inference"));
    const detail::WeighCalls<T, Weigh> calls{weigh, options.chosen, {.training = training}};
    detail::expect_gates(failure, calls, scores, "ordinary scores");
    detail::expect_excluded_gates(failure, calls, scores, d_gates);
    detail::expect_gradient(failure, calls, scores, d_gates, options);
    const std::vector<int> none;
    const detail::WeighCalls<T, Weigh> of_none{weigh, none, calls.pass};
    const auto d_scores = of_none.d_scores(scores, {}, T(0));
    failure.expect(std::count(d_scores.begin(), d_scores.end(), T(0)) == options.columns,
                   "expected no gradient where no expert is chosen, found one");
    if (failure.failed()) return failure.text();
  }
  return "";
}

}  // namespace mole::laws

#include "mole/core/macros_on.hpp"
