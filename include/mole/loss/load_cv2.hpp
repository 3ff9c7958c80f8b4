// SPDX-License-Identifier: MIT
// load_cv2(): the load loss of noisy top-k gates, by how likely each expert is to be chosen.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/trace.hpp"
#include "mole/loss/coefficient.hpp"
#include "mole/loss/squared_cv.hpp"

#include <cmath>
#include <memory_resource>
#include <numbers>
#include <type_traits>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// What the clean logit of an expert has to be above.
enum class LoadThreshold {
  without_it,  ///< the k-th largest noisy logit of the others: Shazeer et al.
  kth,         ///< the k-th largest of all: Tutel
};

/// Options of load_cv2().
struct LoadCv2Options {
  double coefficient = 1;
  Index k = 2;  ///< experts of a token
  LoadThreshold threshold = LoadThreshold::without_it;
  bool of_scores = false;  ///< thresholds are scores, with which logits are compared, as a common port has it
  double deviation = 1;    ///< of the noise of every logit, where no matrix says it
  bool unbiased = true;    ///< variance by E - 1, or by E
  double epsilon = 1e-10;  ///< added to the squared mean
};

/// What noisy logits were made of [N x E], and the gradients of both; empty ones are not wanted.
template <class T>
struct NoisyLogits {
  View<const T> clean;
  View<const T> deviation = {};  ///< empty: the option
  View<T> d_clean = {}, d_deviation = {};
};

/// coefficient * CV^2(load),   load_e = sum over tokens of Phi((clean_ne - threshold_ne) / deviation_ne)
///
///     auto& made = work.router_scratch;  // of a NoisyRouter, after forward
///     load_cv2(work, {made.clean.top(N), made.deviation.top(N), d_clean.view(), d_deviation.view()}, {.k = 2});
///     made.carry = {.d_clean = d_clean, .d_deviation = d_deviation};  // for its backward
///
/// Phi is the normal distribution function: the probability that expert e is among the k of the token when its noise is
/// drawn again; without noise, a deviation of 0, it is 1 above the threshold, 1/2 on it and 0 below, without a
/// gradient. The noisy logits are trace.logits(). Adds gradients to d_clean, d_deviation and, through the thresholds,
/// to d_logits, or to d_scores with of_scores. Where there is no threshold, as k experts or fewer are possible, each
/// counts 1 and has no gradient. Masked tokens and excluded experts do not count, nor does an expert that is excluded
/// for every token. Ties go to the lower index. Throws Error(shape) if sizes disagree; Error(option) for k or a
/// deviation that is not above 0, an epsilon outside [0, 1e30], or a coefficient beyond float (in_float_range).  O(N E
/// k); takes 2 E doubles from `memory`. Source: Shazeer et al. 2017, arXiv:1701.06538, eq. 8-11. Tutel,
/// impls/losses.py: deviation 1 / E, threshold kth, half of the sum with importance_cv2().
template <class T>
double load_cv2(Trace<T>& trace, const NoisyLogits<std::type_identity_t<T>>& noisy, const LoadCv2Options& options = {},
                std::pmr::memory_resource* memory = std::pmr::get_default_resource()) {
  detail::require_coefficient("load_cv2", options.coefficient);
  require(options.epsilon >= 0 && options.epsilon <= 1e30, ErrorCode::option,
          "load_cv2: expected an epsilon from 0 to 1e30, found ", options.epsilon);
  require(options.k >= 1, ErrorCode::option, "load_cv2: expected a k of at least 1, found ", options.k);
  require(options.deviation > 0 && std::isfinite(options.deviation), ErrorCode::option,
          "load_cv2: expected a deviation above 0, found ", options.deviation);
  const Index experts = trace.scored_experts();
  for (const View<const T>& matrix :
       {noisy.clean, noisy.deviation, View<const T>(noisy.d_clean), View<const T>(noisy.d_deviation)})
    require((!matrix && matrix.data() != noisy.clean.data()) ||
                (matrix.rows() == trace.tokens() && matrix.cols() == experts),
            ErrorCode::shape, "load_cv2: expected matrices of [", trace.tokens(), " x ", experts, "], found [",
            matrix.rows(), " x ", matrix.cols(), "]");

  const View<const T> compared = options.of_scores ? std::as_const(trace).scores() : std::as_const(trace).logits();
  const View<T> d_compared = options.of_scores ? trace.d_scores() : trace.d_logits();
  // The expert at a place among the largest of a token, from 0; -1 beyond the possible ones.
  const auto at_place = [&](Index n, Index place) {
    Index found = -1;
    for (Index taken = 0; taken <= place; ++taken) {
      const Index last = found;
      found = -1;
      for (Index e = 0; e < experts; ++e) {
        if (trace.excluded(n, e)) continue;
        const bool after_last =
            last < 0 || compared(n, e) < compared(n, last) || (compared(n, e) == compared(n, last) && e > last);
        if (after_last && (found < 0 || compared(n, e) > compared(n, found))) found = e;
      }
      if (found < 0) return found;
    }
    return found;
  };
  // Calls f(n, e, threshold's expert or -1) for each pair that counts.
  const auto for_each_pair = [&](auto&& f) {
    for (Index n = 0; n < trace.tokens(); ++n) {
      if (!trace.pass.counts(n)) continue;
      const Index kth = at_place(n, options.k - 1), next = at_place(n, options.k);
      for (Index e = 0; e < experts; ++e) {
        if (trace.excluded(n, e)) continue;
        const bool is_among = next >= 0 && std::as_const(trace).logits()(n, e) > compared(n, next);
        f(n, e, next < 0 ? Index(-1) : options.threshold == LoadThreshold::kth || !is_among ? kth : next);
      }
    }
  };
  const auto deviation = [&](Index n, Index e) {
    return noisy.deviation ? double(noisy.deviation(n, e)) : options.deviation;
  };
  const auto standardized = [&](Index n, Index e, Index threshold) {
    const double above = double(noisy.clean(n, e)) - double(compared(n, threshold));
    return above == 0 ? 0 : above / deviation(n, e);
  };
  std::pmr::vector<double> load(std::size_t(experts), 0.0, memory), d_load(std::size_t(experts), 0.0, memory);
  for_each_pair([&](Index n, Index e, Index threshold) {
    load[std::size_t(e)] += threshold < 0 ? 1 : std::erfc(-standardized(n, e, threshold) / std::numbers::sqrt2) / 2;
  });
  const SquaredCv cv = SquaredCv::of(
      experts, options.unbiased, options.epsilon, [&](Index e) { return load[std::size_t(e)]; },
      [&](Index e) { return !trace.excluded(0, trace.tokens(), e); });
  for (std::size_t e = 0; e < load.size(); ++e) d_load[e] = options.coefficient * cv.derivative(load[e]);
  for_each_pair([&](Index n, Index e, Index threshold) {
    if (threshold < 0 || deviation(n, e) == 0) return;
    const double z = standardized(n, e, threshold);
    const double d = d_load[std::size_t(e)] * std::exp(-z * z / 2) / std::sqrt(2 * std::numbers::pi) / deviation(n, e);
    if (noisy.d_clean) noisy.d_clean(n, e) += T(d);
    if (noisy.d_deviation) noisy.d_deviation(n, e) -= T(d * z);
    d_compared(n, threshold) -= T(d);
  });
  return options.coefficient * cv.value();
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
