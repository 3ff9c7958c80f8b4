// SPDX-License-Identifier: MIT
// SignBiasBalancer: balances experts without a gradient, by raising the bias of each expert with too few tokens.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/float_range.hpp"
#include "mole/core/trace.hpp"

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <numeric>
#include <ranges>
#include <span>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// What an expert's count is compared with.
enum class BalanceTarget {
  mean_count,  ///< the mean of all counts
  frequency,   ///< the uniform share 1/E; the reference code compares it with a count, and so does this option
};

/// bias_e += rate * sign(target - count_e),   target = mean over the experts of count   (BalanceTarget::mean_count)
///
///   count_e: pairs of expert e in the calls of observe() since the last update   bias [E]
///
/// Nothing happens behind forward: the caller observes the calls that are to count, recomputed ones once, and updates
/// at any time. Counts are integers and their comparison is exact up to 2^52 pairs, so an expert with exactly its share
/// keeps its bias; if nothing was counted, all do. Replicas sum what for_each_state() visits before they update.
///
/// | published rule                                   | bias of       | observe, update        | options              |
/// | ------------------------------------------------ | ------------- | ---------------------- | -------------------- |
/// | DeepSeek-V3, arXiv:2412.19437, 2.1.2             | GroupedTopK   | each call, each step   | rate 1e-3            |
/// | SMoRA, StyxXuan/smora                            | BiasedSigmoid | each call, each call   | rate 1e-5, padding   |
/// | FlyLoRA, arXiv:2510.08396, eq. 9                 | LatentRouter  | each call, each step   | rate 1e-3            |
/// | FlyLoRA's training code, gfyddha/FlyLoRA, peft   | LatentRouter  | each call, each call   | padding, evaluation  |
/// | FlyLoRA's reference file, gfyddha/FlyLoRA        | LatentRouter  | each call, each step   | frequency, padding   |
///
/// The last rule compares a share with a count, so that the bias of every expert with a token falls and every other
/// rises. The releases store their rate in float32, whatever the bias: double(0.01f) gives their numbers.
///
/// Throws Error(option) for less than 1 expert or a negative rate, and from observe() for a call that does not train;
/// Error(shape) for a trace or a bias of another number of experts. A call that throws has changed nothing.
/// observe(): O(E), or O(pairs) with a mask; update(): O(E). Neither allocates.
/// Source: Wang et al. 2024, arXiv:2408.15664.
class SignBiasBalancer {
 public:
  struct Options {
    Index experts = 0;   ///< those that have a score; shared ones need no balancing
    double rate = 1e-3;  ///< step of a bias, up or down
    BalanceTarget target = BalanceTarget::mean_count;
    bool counts_padding = false;     ///< also count masked tokens
    bool counts_evaluation = false;  ///< also count calls that do not train, instead of rejecting them
  };

  explicit SignBiasBalancer(const Options& options) : options_(options) {
    require(options.experts >= 1, ErrorCode::option, "SignBiasBalancer: expected at least 1 expert, found ",
            options.experts);
    check_rate(options.rate);
    counts_.assign(std::size_t(options.experts), 0);
  }

  Index experts() const { return Index(counts_.size()); }
  double rate() const { return options_.rate; }
  void set_rate(double rate) {
    check_rate(rate);
    options_.rate = rate;
  }

  /// Pairs of each expert, and tokens, since the last update.
  std::span<std::int64_t> counts() { return counts_; }
  std::span<const std::int64_t> counts() const { return counts_; }
  std::int64_t tokens() const { return tokens_; }

  /// Adds the pairs of one call.
  template <class T>
  void observe(const Trace<T>& trace) {
    require_equal(ErrorCode::shape, "SignBiasBalancer: experts of the trace", experts(), trace.scored_experts());
    require(trace.pass.training || options_.counts_evaluation, ErrorCode::option,
            "SignBiasBalancer: expected a call that trains, found one that does not");
    const Routing<T>& routing = trace.routing;
    if (options_.counts_padding || trace.pass.all_count()) {
      for (Index e = 0; e < experts(); ++e) counts_[std::size_t(e)] += routing.load(e);
      tokens_ += trace.tokens();
      return;
    }
    for (Index n = 0; n < trace.tokens(); ++n) {
      if (!trace.pass.counts(n)) continue;
      ++tokens_;
      for (int e : routing.experts_of(n))
        if (e < experts()) ++counts_[std::size_t(e)];
    }
  }

  /// Moves `bias`, any contiguous range of float or double, and restarts counting.
  template <std::ranges::contiguous_range Bias>
  requires std::floating_point<std::ranges::range_value_t<Bias>>
  void update(Bias&& bias) {
    using T = std::ranges::range_value_t<Bias>;
    require_equal(ErrorCode::shape, "SignBiasBalancer: numbers of the bias", experts(), Index(std::ranges::size(bias)));
    const double total = double(std::accumulate(counts_.begin(), counts_.end(), std::int64_t(0)));
    const double one = options_.target == BalanceTarget::mean_count ? 1 : double(std::max<std::int64_t>(1, tokens_));
    const double target = total / (one * double(experts()));
    T* const values = std::ranges::data(bias);
    for (std::size_t e = 0; e < counts_.size(); ++e) {
      const double count = double(counts_[e]);
      values[e] += T(options_.rate) * T((target > count) - (target < count));
    }
    reset();
  }

  /// Resets the counts.
  void reset() {
    std::fill(counts_.begin(), counts_.end(), 0);
    tokens_ = 0;
  }

  /// f(name, span) for the counts, so that a run may stop between two updates.
  template <class F>
  void for_each_state(F&& f) {
    f("counts", std::span(counts_));
    f("tokens", std::span(&tokens_, 1));
  }

 private:
  static void check_rate(double rate) {
    require(rate == 0 || (rate > 0 && in_float_range(rate)), ErrorCode::option,
            "SignBiasBalancer: expected a rate of 0, or from 1e-30 to 1e30, found ", rate);
  }

  Options options_;
  std::vector<std::int64_t> counts_;  // [E]
  std::int64_t tokens_ = 0;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
