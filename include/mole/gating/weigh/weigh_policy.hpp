// SPDX-License-Identifier: MIT
// WeighPolicy: the contract of weighings: how much does each chosen expert count?
#pragma once

#include "mole/core/pass.hpp"
#include "mole/kernel/element_loops.hpp"

#include <concepts>
#include <span>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Satisfied by a copyable type with, for one token,
///     forward(scores, chosen, gates)                       gates overwritten, one per chosen expert
///     backward(scores, chosen, gates, d_gates, d_scores)   d_scores accumulated
///   scores, d_scores [E + extra], chosen, gates, d_gates [K]
/// An expert with a score of -infinity is excluded: if gates depend on scores, its gate is 0, and so is its gradient.
/// A weighing that differs between training and inference takes the pass last in both calls:
///     forward(scores, chosen, gates, pass)      backward(scores, chosen, gates, d_gates, d_scores, pass)
/// A weighing that gives the same gate to all chosen experts of all tokens may name it:   constant_gate()
/// One whose backward adds nothing may say so, and is given no d_gates:   weigh_has_gradient<W> = false
/// One that reads the scores of all experts, not of the chosen alone, must say so:   static constexpr bool reads_all =
/// true; a gate then refuses a score with columns behind those of the experts.
/// One whose gates are shares names that of an expert that serves alone, which is that of a forced expert, whatever its
/// score:   lone_gate()
/// One whose shares can be taken from vanished scores offers, with log_ratio(e, f) = log(score_e / score_f),
///     needs_logs(scores, chosen)   forward_from_logs(log_ratio, chosen, gates)
///     backward_from_logs(chosen, gates, d_gates, add)   add(e, d_log_score) for each chosen expert
template <class W, class T>
concept WeighPolicy = std::copyable<W> &&(
    requires(const W& weigh, std::span<const T> in, std::span<const int> chosen, std::span<T> out) {
      weigh.forward(in, chosen, out);
      weigh.backward(in, chosen, in, in, out);
    } ||
    requires(const W& weigh, std::span<const T> in, std::span<const int> chosen, std::span<T> out, const Pass& pass) {
      weigh.forward(in, chosen, out, pass);
      weigh.backward(in, chosen, in, in, out, pass);
    });

/// Does the backward of W add anything? A specialization says no for W alone: what derives from W has a backward of its
/// own, or says so itself.
template <class W>
constexpr bool weigh_has_gradient = true;

/// Does W read the scores of experts that are not chosen?
template <class W>
constexpr bool weigh_reads_all = requires {
  requires W::reads_all;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
