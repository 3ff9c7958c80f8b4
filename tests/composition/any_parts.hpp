// SPDX-License-Identifier: MIT
// AnyScore, AnySelect, AnyWeigh: the parts of a gate behind one type each, compiled once for all compositions.
#pragma once

#include "mole/gating/score/score_policy.hpp"
#include "mole/gating/score/whole_call_score_policy.hpp"
#include "mole/gating/select/select_policy.hpp"
#include "mole/gating/select/whole_call_select_policy.hpp"
#include "mole/gating/weigh/weigh_policy.hpp"

#include <functional>
#include <memory>
#include <vector>

namespace composition {

using mole::Index;
using mole::Pass;
using mole::View;

namespace detail {
/// check(experts) of a part, if it has one.
template <class Part>
std::function<void(Index)> check_of(const std::shared_ptr<const Part>& part) {
  return [part](Index experts) {
    if constexpr (requires { part->check(experts); }) part->check(experts);
  };
}
}  // namespace detail

/// A score of double that asks for so many columns beyond one an expert.
template <Index columns>
struct AnyScore {
  static constexpr Index extra = columns;
  using Numbers = std::span<const double>;

  template <class Score>
  explicit AnyScore(const Score& score) {
    const auto part = std::make_shared<const Score>(score);
    check = detail::check_of(part);
    forward = [part](Numbers logits, std::span<double> scores) { part->forward(logits, scores); };
    backward = [part](Numbers logits, Numbers scores, Numbers d_scores, std::span<double> d_logits) {
      part->backward(logits, scores, d_scores, d_logits);
    };
  }

  std::function<void(Index)> check;
  std::function<void(Numbers, std::span<double>)> forward;
  std::function<void(Numbers, Numbers, Numbers, std::span<double>)> backward;
};
static_assert(mole::ScorePolicy<AnyScore<0>, double>);

/// A score of the whole call.
struct AnyWholeCallScore {
  template <class Score>
  explicit AnyWholeCallScore(const Score& score) {
    const auto part = std::make_shared<const Score>(score);
    check = detail::check_of(part);
    forward_whole_call = [part](View<const double> logits, View<double> scores, const Pass& pass) {
      part->forward_whole_call(logits, scores, pass);
    };
    backward_whole_call = [part](View<const double> logits, View<const double> scores, View<const double> d_scores,
                                 View<double> d_logits, const Pass& pass) {
      part->backward_whole_call(logits, scores, d_scores, d_logits, pass);
    };
  }

  std::function<void(Index)> check;
  std::function<void(View<const double>, View<double>, const Pass&)> forward_whole_call;
  std::function<void(View<const double>, View<const double>, View<const double>, View<double>, const Pass&)>
      backward_whole_call;
};
static_assert(mole::WholeCallScorePolicy<AnyWholeCallScore, double>);

/// A selection for one token at a time.
struct AnySelect {
  template <class Select>
  explicit AnySelect(const Select& select_) {
    const auto part = std::make_shared<const Select>(select_);
    check = detail::check_of(part);
    max_chosen = [part](Index experts) { return part->max_chosen(experts); };
    select = [part](std::span<const double> scores, Index experts, std::span<int> chosen) {
      return part->select(scores, experts, chosen);
    };
  }

  std::function<void(Index)> check;
  std::function<Index(Index)> max_chosen;
  std::function<Index(std::span<const double>, Index, std::span<int>)> select;
};
static_assert(mole::SelectPolicy<AnySelect, double>);

/// What takes the choices of a selection of the whole call.
struct AnyEmit {
  template <class Emit>
  AnyEmit(const Emit& emit)
      : take([&emit](Index token, int expert) { emit(token, expert); }),
        excluded([&emit](Index token, int expert) { return emit.excludes(token, expert); }) {}

  void operator()(Index token, int expert) const { take(token, expert); }
  bool excludes(Index token, int expert) const { return excluded(token, expert); }

  std::function<void(Index, int)> take;
  std::function<bool(Index, int)> excluded;
};

/// A selection of the whole call.
struct AnyWholeCallSelect {
  using Emit = AnyEmit;
  using Scratch = std::shared_ptr<void>;

  template <class Select>
  explicit AnyWholeCallSelect(const Select& select) {
    const auto part = std::make_shared<const Select>(select);
    check = detail::check_of(part);
    max_pairs = [part](Index tokens, Index experts) { return part->max_pairs(tokens, experts); };
    scratch = [part](const mole::CallSize& size, mole::Arena&) {
      return std::make_shared<mole::OwnedScratch<Select>>(*part, size);
    };
    select_whole_call = [part](View<const double> scores, Index experts, const Pass& pass, const Emit& emit,
                               const Scratch& of_part) {
      part->select_whole_call(scores, experts, pass, emit, **static_cast<mole::OwnedScratch<Select>*>(of_part.get()));
    };
  }

  std::function<void(Index)> check;
  std::function<Index(Index, Index)> max_pairs;
  std::function<Scratch(const mole::CallSize&, mole::Arena&)> scratch;
  std::function<void(View<const double>, Index, const Pass&, const Emit&, const Scratch&)> select_whole_call;
};
static_assert(mole::WholeCallSelectPolicy<AnyWholeCallSelect, double>);

/// A weighing, with the pass for those that ask for it.
struct AnyWeigh {
  using Numbers = std::span<const double>;
  using Chosen = std::span<const int>;

  template <class Weigh>
  explicit AnyWeigh(const Weigh& weigh) {
    const auto part = std::make_shared<const Weigh>(weigh);
    check = detail::check_of(part);
    forward_in = [part](Numbers scores, Chosen chosen, std::span<double> gates, const Pass& pass) {
      if constexpr (requires { part->forward(scores, chosen, gates, pass); })
        part->forward(scores, chosen, gates, pass);
      else
        part->forward(scores, chosen, gates);
    };
    backward_in = [part](Numbers scores, Chosen chosen, Numbers gates, Numbers d_gates, std::span<double> d_scores,
                         const Pass& pass) {
      if constexpr (requires { part->backward(scores, chosen, gates, d_gates, d_scores, pass); })
        part->backward(scores, chosen, gates, d_gates, d_scores, pass);
      else
        part->backward(scores, chosen, gates, d_gates, d_scores);
    };
  }

  void forward(Numbers scores, Chosen chosen, std::span<double> gates, const Pass& pass) const {
    forward_in(scores, chosen, gates, pass);
  }
  void backward(Numbers scores, Chosen chosen, Numbers gates, Numbers d_gates, std::span<double> d_scores,
                const Pass& pass) const {
    backward_in(scores, chosen, gates, d_gates, d_scores, pass);
  }

  std::function<void(Index)> check;
  std::function<void(Numbers, Chosen, std::span<double>, const Pass&)> forward_in;
  std::function<void(Numbers, Chosen, Numbers, Numbers, std::span<double>, const Pass&)> backward_in;
};
static_assert(mole::WeighPolicy<AnyWeigh, double>);

}  // namespace composition
