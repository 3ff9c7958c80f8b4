// SPDX-License-Identifier: MIT
// SelectRows: the selections of many tokens, one token at a time or one per lane of a vector.
#pragma once

#include "mole/core/view.hpp"
#include "mole/gating/select/select_policy.hpp"
#include "mole/kernel/lanes.hpp"
#include "mole/kernel/largest_in_lanes.hpp"

#include <algorithm>
#include <array>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The experts chosen for some tokens.
///
///   scores [tokens x (E + extra)]   ->   chosen [tokens x at least max_chosen(E)], count [tokens]
///
/// Selections only compare and add, lane by lane in the order of the scalar form, so both forms choose the same experts
/// and either may be used. Lanes are used if the selection offers them, E and K are small enough, and at least a
/// quarter of the lanes has a token.
template <class Arch>
struct SelectRows {
  template <class Select, class T>
  static void select(const Select& select, View<const T> scores, Index experts, View<int> chosen,
                     std::span<int> count) {
    for (Index n = 0, tokens; n < scores.rows(); n += tokens) {
      tokens = std::min(step<T>, scores.rows() - n);
      const View<const T> rows = scores.middle_rows(n, tokens);
      const View<int> to = chosen.middle_rows(n, tokens);
      const std::span<int> to_count = count.subspan(std::size_t(n), std::size_t(tokens));
      if (!select_lanes(select, rows, experts, to, to_count)) select_each(select, rows, experts, to, to_count);
    }
  }

 private:
  static constexpr Index most_experts = 512;  // 32 KiB of stack

  template <class T>
  static constexpr Index step = [] {
    if constexpr (std::is_void_v<Arch>)
      return 1;
    else
      return kernel::step_of<Arch, T>;
  }();

  template <class Select, class T>
  static void select_each(const Select& select, View<const T> scores, Index experts, View<int> chosen,
                          std::span<int> count) {
    for (Index n = 0; n < scores.rows(); ++n) {
      const std::span<const T> row = scores.row(n);
      const auto slots = chosen.row(n).first(std::size_t(select.max_chosen(experts)));
      count[std::size_t(n)] = int(select.select(row, experts, slots));
    }
  }

  /// False, with nothing chosen, if lanes are not offered or do not pay, or a score is NaN.
  template <class Select, class T>
  static bool select_lanes(const Select& select, View<const T> scores, Index experts, View<int> chosen,
                           std::span<int> count) {
    if constexpr (!std::is_void_v<Arch>)
      if constexpr (LaneSelectPolicy<Select, kernel::Vector<Arch, T>>) {
        using Lanes = kernel::Lanes<Arch, T>;
        using Vector = typename Lanes::Vector;
        constexpr Index most_slots = kernel::LargestInLanes<Arch, T>::most;
        const Index slots = select.max_chosen(experts);
        if (experts > most_experts || slots > most_slots || 4 * scores.rows() < Lanes::step) return false;
        std::array<Vector, std::size_t(most_experts)> in;
        std::array<Vector, std::size_t(most_slots)> out;
        Lanes::gather(scores.data(), scores.stride(), scores.rows(), experts, in.data());
        if (has_nan(in.data(), experts)) return false;
        const Vector counts = select.select(std::span<const Vector>(in).first(std::size_t(experts)), experts,
                                            std::span(out).first(std::size_t(slots)));
        Lanes::scatter(out.data(), scores.rows(), slots, chosen.data(), chosen.stride());
        Lanes::scatter(&counts, scores.rows(), 1, count.data(), 1);
        return true;
      }
    return false;
  }

  template <class V>
  static bool has_nan(const V* x, Index size) {
    auto number = x[0] == x[0];
    for (Index i = 1; i < size; ++i) number = number & (x[i] == x[i]);
    return !all(number);
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
