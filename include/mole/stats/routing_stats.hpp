// SPDX-License-Identifier: MIT
// RoutingStats: counts of how experts are used, over any number of calls, and measures of balance.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/trace.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Load and gate mass per expert, and the distribution of the number of experts per token.
///
///   load_e   pairs of expert e, an integer        mass_e   the sum of their gates, in double
///   of those experts that have a score (shared ones serve every token), and the tokens that pass.counts()
///
/// A token that no expert serves counts as a token with 0 experts, an expert that is excluded as one that nobody chose.
/// Counts are exact whatever the order of calls and merges; masses have the rounding of sums of doubles. Figures are
/// computed on demand, since experts are few. Throws Error(option) for less than 1 expert, Error(shape) for a trace, a
/// routing or stats of other experts. observe(): O(N + pairs), no allocation. 2 us for top-2 of 8, 6 us for 8 of 64 at
/// T = 512: 0.04 and 0.1 % of the forward of a layer of width 768; bench/routing_stats_bench.cpp.
class RoutingStats {
 public:
  explicit RoutingStats(Index experts) {
    require(experts >= 1, ErrorCode::option, "RoutingStats: expected at least 1 expert, found ", experts);
    load_.assign(std::size_t(experts), 0);
    mass_.assign(std::size_t(experts), 0);
    histogram_.assign(std::size_t(experts) + 1, 0);
  }

  /// Adds the routing of one call.
  template <class T>
  void observe(const Trace<T>& trace) {
    observe(trace.routing, trace.pass, trace.shared());
  }

  /// The same for a routing from outside, whose last `shared` experts do not count.
  template <class T>
  void observe(const Routing<T>& routing, const Pass& pass = {}, Index shared = 0) {
    require(routing.finished(), ErrorCode::order, "RoutingStats: expected a routing after finish(), found one before");
    require_equal(ErrorCode::shape, "RoutingStats: experts of the routing", experts(), routing.experts() - shared);
    pass.check(routing.tokens(), experts());
    const std::size_t scored = load_.size();
    for (Index n = 0; n < routing.tokens(); ++n) {
      if (!pass.counts(n)) continue;
      const std::span<const int> chosen = routing.experts_of(n);
      const std::span<const T> gates = routing.gates_of(n);
      std::size_t count = 0;
      for (std::size_t i = 0; i < chosen.size(); ++i) {
        const std::size_t e = std::size_t(chosen[i]);
        if (e >= scored) continue;
        ++load_[e];
        mass_[e] += double(gates[i]);
        ++count;
      }
      MOLE_ASSERT(count < histogram_.size());
      ++histogram_[count];
    }
  }

  /// Adds the counts of `other`.
  void merge(const RoutingStats& other) {
    require_equal(ErrorCode::shape, "RoutingStats: experts of the other", experts(), other.experts());
    const auto add = [](auto& to, const auto& from) {
      for (std::size_t i = 0; i < to.size(); ++i) to[i] += from[i];
    };
    add(load_, other.load_);
    add(mass_, other.mass_);
    add(histogram_, other.histogram_);
  }

  void reset() {
    std::fill(load_.begin(), load_.end(), 0);
    std::fill(mass_.begin(), mass_.end(), 0.0);
    std::fill(histogram_.begin(), histogram_.end(), 0);
  }

  Index experts() const { return Index(load_.size()); }
  std::span<const std::int64_t> load() const { return load_; }
  std::span<const double> mass() const { return mass_; }
  /// Element k: the number of tokens that have k experts.   [E + 1]
  std::span<const std::int64_t> tokens_by_experts() const { return histogram_; }

  std::int64_t tokens() const { return sum(histogram_); }
  std::int64_t pairs() const { return sum(load_); }
  double mean_experts_per_token() const { return tokens() == 0 ? 0 : double(pairs()) / double(tokens()); }

  /// Standard deviation of the load over its mean: 0 if all are equal, sqrt(E - 1) if one has all; 0 without pairs.
  double load_cv() const;
  /// -sum_e s_e log s_e of the shares s of the load: from 0 to log E; 0 without pairs.
  double load_entropy() const;
  /// sum_e s_e log(E s_e) = log E - entropy: how far the shares are from uniform; 0 without pairs.
  double load_kl_to_uniform() const;
  /// Experts that no token has chosen.
  Index dead_experts() const { return Index(std::count(load_.begin(), load_.end(), 0)); }

  /// f(name, span) for all counts: to save them, or to sum them over processes.
  template <class F>
  void for_each_state(F&& f) {
    f("load", std::span(load_));
    f("mass", std::span(mass_));
    f("tokens_by_experts", std::span(histogram_));
  }

 private:
  static std::int64_t sum(const std::vector<std::int64_t>& counts) {
    std::int64_t total = 0;
    for (std::int64_t count : counts) total += count;
    return total;
  }

  std::vector<std::int64_t> load_;       // [E]
  std::vector<double> mass_;             // [E]
  std::vector<std::int64_t> histogram_;  // [E + 1]
};

inline double RoutingStats::load_cv() const {
  if (pairs() == 0) return 0;
  const double mean = double(pairs()) / double(experts());
  double squares = 0;
  for (std::int64_t load : load_) squares += (double(load) - mean) * (double(load) - mean);
  return std::sqrt(squares / double(experts())) / mean;
}

inline double RoutingStats::load_entropy() const {
  const double total = double(pairs());
  double entropy = 0;
  for (std::int64_t load : load_)
    if (load > 0) entropy -= double(load) / total * std::log(double(load) / total);
  return entropy;
}

inline double RoutingStats::load_kl_to_uniform() const {
  const double total = double(pairs());
  double divergence = 0;
  for (std::int64_t load : load_)
    if (load > 0) divergence += double(load) / total * std::log(double(load) / total * double(experts()));
  return divergence;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
