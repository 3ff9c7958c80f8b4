// SPDX-License-Identifier: MIT
// BalanceLoss: the value and the gradient of load_balance() for the tokens of one group.
#pragma once

#include "mole/core/trace.hpp"
#include "mole/gating/select/select_policy.hpp"
#include "mole/loss/load_balance_options.hpp"

#include <algorithm>
#include <array>
#include <span>

#include "mole/core/macros_off.hpp"

namespace mole::detail {

/// The tokens of one value of the loss: all of some traces, or one sequence of one trace.
template <class T>
struct BalanceGroup {
  std::span<Trace<T>* const> traces;
  Index sequence = -1;  ///< -1: all

  Index first_of(const Trace<T>& trace) const { return sequence < 0 ? 0 : trace.pass.first_of(sequence); }
  Index end_of(const Trace<T>& trace) const {
    return sequence < 0 ? trace.tokens() : trace.pass.end_of(sequence, trace.tokens());
  }
  /// Calls f(trace, n) for every token that is not masked.
  template <class F>
  void for_each_token(F&& f) const {
    for (Trace<T>* trace : traces)
      for (Index n = first_of(*trace); n < end_of(*trace); ++n)
        if (trace->pass.counts(n)) f(*trace, n);
  }
  Index tokens() const {
    Index tokens = 0;
    for_each_token([&](const Trace<T>&, Index) { ++tokens; });
    return tokens;
  }
  /// Experts that are not excluded for every token.
  Index experts() const {
    Index experts = 0;
    for (Index e = 0; e < traces.front()->scored_experts(); ++e)
      experts += !std::ranges::all_of(
          traces, [&](const Trace<T>* trace) { return trace->excluded(first_of(*trace), end_of(*trace), e); });
    return experts;
  }
};

/// The loss of one group. Sums over tokens are taken for 64 experts at a time, which keeps them on the stack; for more
/// experts the tokens are read again, so that no memory is needed.
template <class T>
class BalanceLoss {
 public:
  BalanceLoss(const BalanceGroup<T>& group, const LoadBalanceOptions& options, double coefficient)
      : group_(group),
        count_(options.count),
        k_(options.k),
        score_(options.score),
        experts_(group.traces.front()->scored_experts()),
        tokens_(double(group.tokens())),
        shares_(options.norm == BalanceNorm::one_at_uniform || options.norm == BalanceNorm::without_experts),
        total_(shares_ ? total_count() : tokens_),
        factor_(coefficient * (is_per_expert(options.norm) ? 1.0 : double(group.experts()))) {}

  /// The value; adds its gradient.
  double operator()() const {
    if (tokens_ == 0 || total_ == 0) return 0;
    double sum = 0;
    for (Index begin = 0; begin < experts_; begin += width) {
      const Block block = sums_over_tokens(begin);
      for (Index j = 0; j < block.size; ++j)
        sum += block.count[std::size_t(j)] / total_ * (block.score[std::size_t(j)] / tokens_);
      add_gradient(block);
    }
    // The total of the gates divides every share: d(c_e / total) has a second term, the same for all pairs.
    if (count_ == BalanceCount::gates && shares_) add_to_d_gate([&](int) { return -factor_ * sum / total_; });
    return factor_ * sum;
  }

 private:
  static bool is_per_expert(BalanceNorm norm) {
    return norm == BalanceNorm::without_experts || norm == BalanceNorm::k_without_experts;
  }

  static constexpr Index width = 64;

  /// Sums for experts begin ... begin + size - 1.
  struct Block {
    Index begin, size;
    std::array<double, width> count{}, score{};

    bool holds(Index expert) const { return expert >= begin && expert < begin + size; }
    double& count_of(Index expert) { return count[std::size_t(expert - begin)]; }
    double& score_of(Index expert) { return score[std::size_t(expert - begin)]; }
  };

  Block sums_over_tokens(Index begin) const {
    Block block{begin, std::min(width, experts_ - begin), {}, {}};
    group_.for_each_token([&](const Trace<T>& trace, Index n) {
      const T* const scores = trace.scores().row_data(n);
      if (score_ != BalanceScore::gates) {
        const double threshold = score_ == BalanceScore::above_threshold ? double(scores[experts_]) : 0;
        for_each_scored(trace, n, block,
                        [&](Index j) { block.score[std::size_t(j)] += double(scores[begin + j]) - threshold; });
      }
      add_choices(trace, n, block);
    });
    return block;
  }

  /// Calls f(j) for every expert begin + j of a block that token n does not exclude.
  template <class F>
  static void for_each_scored(const Trace<T>& trace, Index n, const Block& block, F f) {
    if (!trace.excludes(n)) {
      for (Index j = 0; j < block.size; ++j) f(j);
    } else {
      for (Index j = 0; j < block.size; ++j)
        if (!trace.excluded(n, block.begin + j)) f(j);
    }
  }

  /// Counts token n, and its gates if P is their mean.
  void add_choices(const Trace<T>& trace, Index n, Block& block) const {
    if (counts_scores())
      for_each_first_choice(trace, n, [&](int e) {
        if (block.holds(e)) block.count_of(e) += 1;
      });
    for_each_choice(trace, n, [&](int e, double gate) {
      if (!block.holds(e)) return;
      if (!counts_scores()) block.count_of(e) += count_ == BalanceCount::gates ? gate : 1;
      if (score_ == BalanceScore::gates) block.score_of(e) += gate;
    });
  }

  /// Calls f(e, gate) for every expert of a token that the loss is about; one that is excluded may have been forced.
  template <class F>
  void for_each_choice(const Trace<T>& trace, Index n, F&& f) const {
    const std::span<const int> chosen = trace.routing.experts_of(n);
    const std::span<const T> gates = trace.routing.gates_of(n);
    for (std::size_t i = 0; i < chosen.size(); ++i)
      if (chosen[i] < experts_ && !trace.excluded(n, chosen[i])) f(chosen[i], double(gates[i]));
  }

  /// Are choices counted by scores, and not by the routing?
  bool counts_scores() const {
    return count_ == BalanceCount::first_choice || count_ == BalanceCount::first_choice_if_served;
  }

  /// Calls f(e) for the k experts with the best scores, or for as many as are not excluded.
  template <class F>
  void for_each_first_choice(const Trace<T>& trace, Index n, F&& f) const {
    const T* const scores = trace.scores().row_data(n);
    const auto before = [&](int i, int j) { return chosen_before(scores[i], i, scores[j], j); };
    const bool dropped = count_ == BalanceCount::first_choice_if_served &&
                         std::ranges::none_of(trace.routing.experts_of(n), [&](int e) { return e < experts_; });
    int last = -1;
    for (Index found = 0; found < k_; ++found) {
      int best = -1;
      for (int e = 0; e < experts_; ++e)
        if (!trace.excluded(n, e) && (last < 0 || before(last, e)) && (best < 0 || before(e, best))) best = e;
      if (best < 0) return;
      f(dropped ? 0 : best);
      last = best;
    }
  }

  double total_count() const {
    double total = 0;
    group_.for_each_token([&](const Trace<T>& trace, Index n) {
      if (counts_scores()) {
        for_each_first_choice(trace, n, [&](int) { ++total; });
      } else {
        for_each_choice(trace, n, [&](int, double gate) { total += count_ == BalanceCount::gates ? gate : 1; });
      }
    });
    return total;
  }

  /// d_score_ne += factor (count_e / total) / T, or the same to d_gate_ne if P is the mean of gates; if P is the mean
  /// of scores minus a threshold, the threshold gets the negative sum.   d_gate_ne += factor P_e / total if gates are
  /// counted
  void add_gradient(const Block& block) const {
    std::array<double, width> d_score;
    for (std::size_t j = 0; j < std::size_t(block.size); ++j) d_score[j] = factor_ * block.count[j] / total_ / tokens_;
    if (score_ != BalanceScore::gates)
      group_.for_each_token([&](Trace<T>& trace, Index n) {
        T* const d_scores = trace.d_scores().row_data(n);
        for_each_scored(trace, n, block, [&](Index j) { d_scores[block.begin + j] += T(d_score[std::size_t(j)]); });
        if (score_ != BalanceScore::above_threshold) return;
        double sum = 0;
        for_each_scored(trace, n, block, [&](Index j) { sum += d_score[std::size_t(j)]; });
        d_scores[experts_] -= T(sum);
      });
    const bool of_gates = score_ == BalanceScore::gates, counts_gates = count_ == BalanceCount::gates;
    if (!of_gates && !counts_gates) return;
    add_to_d_gate([&](int e) {
      if (!block.holds(e)) return 0.0;
      const std::size_t j = std::size_t(e - block.begin);
      return (of_gates ? d_score[j] : 0) + (counts_gates ? factor_ * block.score[j] / tokens_ / total_ : 0);
    });
  }

  /// d_gate += of_expert(e) for every pair of a counted token and an expert e.
  template <class F>
  void add_to_d_gate(F&& of_expert) const {
    group_.for_each_token([&](Trace<T>& trace, Index n) {
      const std::span<const int> chosen = trace.routing.experts_of(n);
      const std::span<T> d_gate = trace.routing.of_token(trace.d_gate_of_routing("load_balance"), n);
      for (std::size_t i = 0; i < chosen.size(); ++i)
        if (chosen[i] < experts_ && !trace.excluded(n, chosen[i])) d_gate[i] += T(of_expert(chosen[i]));
    });
  }

  BalanceGroup<T> group_;
  BalanceCount count_;
  Index k_;
  BalanceScore score_;
  Index experts_;
  double tokens_;
  bool shares_;  // of all counts, not of tokens
  double total_, factor_;
};

}  // namespace mole::detail

#include "mole/core/macros_on.hpp"
