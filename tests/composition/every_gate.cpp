// SPDX-License-Identifier: MIT
#include "composition/every_gate.hpp"

#include "composition/any_parts.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/biased_sigmoid.hpp"
#include "mole/gating/score/identity.hpp"
#include "mole/gating/score/l2_normalized.hpp"
#include "mole/gating/score/learned_sparsegen.hpp"
#include "mole/gating/score/magnitude.hpp"
#include "mole/gating/score/masked_softmax.hpp"
#include "mole/gating/score/sigmoid.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/score/softmax_over_tokens.hpp"
#include "mole/gating/score/softmax_with_threshold.hpp"
#include "mole/gating/score/sparsegen.hpp"
#include "mole/gating/select/all.hpp"
#include "mole/gating/select/entropy_hybrid.hpp"
#include "mole/gating/select/expert_capacity.hpp"
#include "mole/gating/select/expert_choice.hpp"
#include "mole/gating/select/grouped_top_k.hpp"
#include "mole/gating/select/learned_threshold.hpp"
#include "mole/gating/select/near_best.hpp"
#include "mole/gating/select/nth_best.hpp"
#include "mole/gating/select/relative_threshold.hpp"
#include "mole/gating/select/threshold.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/select/top_p.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/gating/weigh/raw_unless_forced.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/gating/weigh/renormalized_over_best.hpp"
#include "mole/gating/weigh/shifted.hpp"
#include "mole/gating/weigh/softmax_over_chosen.hpp"
#include "mole/gating/weigh/straight_through.hpp"
#include "mole/gating/weigh/unit.hpp"

#include <string_view>
#include <variant>

namespace composition {
namespace {

using namespace mole;

/// What a Score makes, and what a Select or a Weigh asks of it.
enum class Numbers { of_any_sign, not_negative, probabilities, probabilities_and_threshold };
using enum Numbers;

/// A policy with options for gate_experts, behind a type for all of its role.
template <class Any>
struct Part {
  std::string name;
  Numbers numbers;
  Any part;
};

using Score = Part<std::variant<AnyScore<0>, AnyScore<1>, AnyWholeCallScore>>;

template <class S>
Score score(const char* name, Numbers made, const S& part) {
  static_assert(ScorePolicy<S, double> || WholeCallScorePolicy<S, double>);
  if constexpr (WholeCallScorePolicy<S, double>)
    return {name, made, AnyWholeCallScore(part)};
  else if constexpr (requires { S::extra; })
    return {name, made, AnyScore<S::extra>(part)};
  else
    return {name, made, AnyScore<0>(part)};
}

struct Select : Part<std::variant<AnySelect, AnyWholeCallSelect>> {
  bool keeps_the_best = true;  ///< expert of every token
};

template <class S>
Select select(const char* name, Numbers asked, const S& part, bool keeps_the_best = true) {
  if constexpr (WholeCallSelectPolicy<S, double>) {
    return {{name, asked, AnyWholeCallSelect(part)}, keeps_the_best};
  } else {
    static_assert(SelectPolicy<S, double>);
    return {{name, asked, AnySelect(part)}, keeps_the_best};
  }
}

struct Weigh : Part<AnyWeigh> {
  bool gradient_is_derivative = true;
  bool divides_by_a_difference = false;
  bool reads_all = false;  ///< scores, also those that are not chosen
};

template <class W>
Weigh weigh(const char* name, Numbers asked, const W& part, bool gradient_is_derivative = true) {
  static_assert(WeighPolicy<W, double>);
  return {{name, asked, AnyWeigh(part)}, gradient_is_derivative, std::is_same_v<W, Shifted>, weigh_reads_all<W>};
}

// ---- the parts

std::vector<Score> scores() {
  BiasedSigmoid<double> biased(gate_experts);
  biased.bias = {0.02, 0, 0.01, 0};
  return {score("Softmax", probabilities, Softmax{.temperature = 0.7}),
          score("MaskedSoftmax", probabilities, MaskedSoftmax{{1, 1, 0, 1}}),
          score("Softmax with a divisor", not_negative, Softmax{.divisor = 1.3}),
          score("Sigmoid", not_negative, Sigmoid{}),
          score("BiasedSigmoid", not_negative, biased),
          score("Identity", of_any_sign, Identity{}),
          score("Magnitude", not_negative, Magnitude{}),
          score("SoftmaxOverTokens", not_negative, SoftmaxOverTokens{}),
          score("L2Normalized", of_any_sign, L2Normalized{}),
          score("Sparsegen", probabilities, Sparsegen{}),
          score("LearnedSparsegen", probabilities, LearnedSparsegen{}),
          score("SoftmaxWithThreshold", probabilities_and_threshold, SoftmaxWithThreshold{})};
}

std::vector<Select> selects() {
  return {
      select("All", of_any_sign, All{}),
      select("TopK", of_any_sign, TopK{2}),
      select("NthBest", of_any_sign, NthBest{{1}}, false),
      select("NearBest", of_any_sign, NearBest{.tolerance = 0.3}),
      select("GroupedTopK", of_any_sign, GroupedTopK<double>(2, 2, 1, {0.1, 0, 0, 0.2}), false),  // its bias chooses
      select("Threshold", of_any_sign, Threshold{.threshold = 0.2}, false),
      select("ExpertCapacity", of_any_sign, ExpertCapacity{TopK{2}}, false),
      select("ExpertChoice", of_any_sign, ExpertChoice{}, false),
      select("TopP", not_negative, TopP{.p = 0.6}),
      select("RelativeThreshold", not_negative, RelativeThreshold{.ratio = 0.5, .k = 3}),
      select("EntropyHybrid", probabilities, EntropyHybrid{}),
      select("LearnedThreshold", probabilities_and_threshold, LearnedThreshold{})};
}

std::vector<Weigh> weighs() {
  return {weigh("Raw", of_any_sign, Raw{.scale = 1.5}),
          weigh("Raw with an offset", of_any_sign, Raw{.offset = 1}),
          weigh("RawUnlessForced", of_any_sign, RawUnlessForced{}),
          weigh("Unit", of_any_sign, Unit{}),
          weigh("StraightThrough", of_any_sign, StraightThrough{}, false),
          weigh("SoftmaxOverChosen", of_any_sign, SoftmaxOverChosen{.temperature = 0.5}),
          weigh("Renormalized", not_negative, Renormalized{}),
          weigh("Renormalized to 2", not_negative, Renormalized{2}),
          weigh("RenormalizedOverBest", not_negative, RenormalizedOverBest{.k = 2}),
          weigh("Shifted", probabilities_and_threshold, Shifted{})};
}

// ---- what does not make sense together

std::string why_not(Numbers made, Numbers asked) {
  if (made >= asked) return "";
  switch (asked) {
    case of_any_sign:
      break;
    case not_negative:
      return "it adds scores up or compares their ratios, which says nothing where some are negative";
    case probabilities:
      return "an entropy is that of probabilities";
    case probabilities_and_threshold:
      return "it reads a threshold that the score does not have beside its probabilities";
  }
  return "";
}

std::string why_not(const Score& score, const Select& select, const Weigh& weigh) {
  if (const auto reason = why_not(score.numbers, select.numbers); !reason.empty()) return reason;
  if (const auto reason = why_not(score.numbers, weigh.numbers); !reason.empty()) return reason;
  if (weigh.divides_by_a_difference && !select.keeps_the_best)
    return "it divides by the sum above the threshold, which is not sure to be above 0 without the best expert";
  if (weigh.reads_all && std::holds_alternative<AnyScore<1>>(score.part))
    return "it would count the column behind the experts among their scores";
  return "";
}

}  // namespace

EveryGate every_gate() {
  EveryGate all;
  for (const Score& score : scores()) ++all.scores[std::size_t(score.numbers)];
  for (const Select& select : selects()) ++all.selects[std::size_t(select.numbers)];
  for (const Weigh& weigh : weighs()) ++all.weighs[std::size_t(weigh.numbers)];
  for (const Select& select : selects())
    for (const Weigh& weigh : weighs())
      all.may_divide_by_zero += weigh.divides_by_a_difference && !select.keeps_the_best;
  for (const Score& score : scores())
    for (const Select& select : selects())
      for (const Weigh& weigh : weighs())
        all.would_count_a_column += weigh.reads_all && std::holds_alternative<AnyScore<1>>(score.part) &&
                                    why_not(score.numbers, select.numbers).empty() &&
                                    why_not(score.numbers, weigh.numbers).empty();
  for (const Score& score : scores())
    for (const Select& select : selects())
      for (const Weigh& weigh : weighs()) {
        const std::string name = score.name + ", " + select.name + ", " + weigh.name;
        if (const std::string reason = why_not(score, select, weigh); !reason.empty()) {
          all.others.push_back({name, reason});
          continue;
        }
        const auto gate = [&](const auto& s, const auto& chooser) { return AnyGate(Gate(s, chooser, weigh.part)); };
        all.gates.push_back({name, std::visit(gate, score.part, select.part),
                             std::holds_alternative<AnyWholeCallSelect>(select.part) ||
                                 std::holds_alternative<AnyWholeCallScore>(score.part),
                             weigh.gradient_is_derivative,
                             score.numbers >= not_negative && !weigh.divides_by_a_difference});
      }
  return all;
}

}  // namespace composition
