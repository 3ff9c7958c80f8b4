// SPDX-License-Identifier: MIT
// The laws of selections, for every selection of the library and a user's own.
#pragma once

#include "mole/gating/select/select_policy.hpp"
#include "mole/kernel/lanes.hpp"
#include "mole/kernel/largest_in_lanes.hpp"
#include "mole/testing/first_failure.hpp"
#include "mole/testing/random_matrix.hpp"

#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole::laws {

/// What a selection does not promise, and what to try it with.
struct SelectLawOptions {
  Index columns = 0;       ///< behind the experts' scores: a threshold of the token, say
  bool best_first = true;  ///< chosen experts come in the order of selections; false for All, or where a bias chooses
  bool lower_of_equals =
      true;  ///< of experts with one score, the lower indices are chosen; false for a place in the order
  Index tokens = 48;
  std::uint64_t seed = 61;
};

namespace detail {
/// Kinds of tokens that a selection meets, in turn.
enum class TokenKind { random, ties, equal, peak, infinities, nan };

/// Scores that are probabilities, except for infinities and NaN; behind them, 0.5 / E.   [tokens x (E + columns)]
template <class T>
Matrix<T> some_scores(Index experts, const SelectLawOptions& options) {
  Rng rng(options.seed);
  Matrix<T> scores(options.tokens, experts + options.columns);
  for (Index n = 0; n < options.tokens; ++n) {
    const auto row = scores.view().row(n);
    const TokenKind kind = TokenKind(n % 6);
    T sum = 0;
    for (Index e = 0; e < experts; ++e) {
      const std::uint64_t bits = rng();
      T& score = row[std::size_t(e)];
      score = T(0.01 + unit_interval(bits));
      if (kind == TokenKind::ties) score = T(1 + bits % 3);
      if (kind == TokenKind::equal) score = 1;
      if (kind == TokenKind::peak && e == n % experts) score = T(4 * experts);
      sum += score;
    }
    for (Index e = 0; e < experts; ++e) row[std::size_t(e)] /= sum;
    std::fill(row.begin() + experts, row.end(), T(0.5) / T(experts));
    const std::size_t at = std::size_t(rng() % std::uint64_t(experts));
    if (kind == TokenKind::infinities) row[at] = -std::numeric_limits<T>::infinity();
    if (kind == TokenKind::nan) row[at] = std::numeric_limits<T>::quiet_NaN();
  }
  return scores;
}

template <class T>
void expect_order(FirstFailure& failure, std::span<const T> scores, std::span<const int> chosen, Index experts, Index n,
                  const SelectLawOptions& options) {
  const auto score = [&](int e) { return scores[std::size_t(e)]; };
  for (std::size_t j = 1; options.best_first && j < chosen.size(); ++j)
    failure.expect(chosen_before(score(chosen[j - 1]), chosen[j - 1], score(chosen[j]), chosen[j]), "token ", n,
                   ": expected the best first, ties to the lower index, NaN last, found expert ", chosen[j - 1],
                   " of score ", score(chosen[j - 1]), " before expert ", chosen[j], " of score ", score(chosen[j]));
  if (!options.lower_of_equals) return;
  std::vector<bool> is_chosen(static_cast<std::size_t>(experts));
  for (int e : chosen) is_chosen[std::size_t(e)] = true;
  for (int i = 0; i < experts; ++i)
    for (int j = i + 1; j < experts; ++j)
      failure.expect(score(i) != score(j) || is_chosen[std::size_t(i)] || !is_chosen[std::size_t(j)], "token ", n,
                     ": expected the lower index of equal scores, found expert ", j, " chosen and not ", i);
}

/// What each token is given, one by one.
template <class T, class Select>
std::vector<std::vector<int>> expect_valid_choices(FirstFailure& failure, const Select& select, const Matrix<T>& scores,
                                                   Index experts, const SelectLawOptions& options) {
  constexpr int untouched = -7;
  const Index most = select.max_chosen(experts);
  failure.expect(most >= 0, "expected max_chosen() of at least 0, found ", most);
  bool all = false;
  if constexpr (requires { select.takes_all(experts); }) all = select.takes_all(experts);
  std::vector<std::vector<int>> choices;
  for (Index n = 0; n < scores.rows() && !failure.failed(); ++n) {
    std::vector<int> chosen(std::size_t(most) + 1, untouched), again = chosen;
    const auto row = scores.view().row(n);
    const Index count = select.select(row, experts, std::span<int>(chosen).first(std::size_t(most)));
    const Index same = select.select(row, experts, std::span<int>(again).first(std::size_t(most)));
    failure.expect(count >= 0 && count <= most, "token ", n, ": expected from 0 to max_chosen = ", most,
                   " experts, found ", count);
    failure.expect(chosen.back() == untouched, "token ", n, ": expected nothing beyond ", most,
                   " experts to be written, found ", chosen.back());
    if (failure.failed()) return choices;
    chosen.resize(std::size_t(count)), again.resize(std::size_t(count));
    failure.expect(count == same && chosen == again, "token ", n,
                   ": expected the same choice a second time, found another");
    std::vector<bool> seen(static_cast<std::size_t>(experts));
    for (int e : chosen) {
      failure.expect(e >= 0 && e < experts, "token ", n, ": expected experts from 0 to ", experts - 1, ", found ", e);
      if (failure.failed()) return choices;
      failure.expect(!seen[std::size_t(e)], "token ", n, ": expected distinct experts, found ", e, " twice");
      seen[std::size_t(e)] = true;
    }
    failure.expect(!all || count == experts, "token ", n, ": expected all experts where takes_all() says so, found ",
                   count);
    expect_order<T>(failure, row, chosen, experts, n, options);
    choices.push_back(std::move(chosen));
  }
  return choices;
}

/// A token in each lane is given what it is given alone. Not for NaN, nor for many experts or choices.
template <class T, class Select>
void expect_lane_form(FirstFailure& failure, const Select& select, const Matrix<T>& scores, Index experts,
                      const std::vector<std::vector<int>>& expected) {
  using Lanes = kernel::Lanes<kernel::DefaultArchitecture, T>;
  using Vector = typename Lanes::Vector;
  if constexpr (LaneSelectPolicy<Select, Vector>) {
    const Index most = select.max_chosen(experts);
    if (experts > 512 || most > kernel::LargestInLanes<kernel::DefaultArchitecture, T>::most) return;
    std::vector<Vector> in(static_cast<std::size_t>(experts)), out(static_cast<std::size_t>(most));
    for (Index n = 0; n < scores.rows(); ++n) {
      if (TokenKind(n % 6) == TokenKind::nan) continue;
      Lanes::gather(scores.view().row_data(n), 0, 1, experts, in.data());
      const Vector count = select.select(std::span<const Vector>(in), experts, std::span<Vector>(out));
      std::vector<int> counts(static_cast<std::size_t>(Lanes::step));
      Lanes::scatter(&count, Lanes::step, 1, counts.data(), 1);
      Matrix<int> found(Lanes::step, most);
      Lanes::scatter(out.data(), Lanes::step, most, found.data(), most);
      for (Index lane = 0; lane < Lanes::step; ++lane) {
        const auto chosen = found.view().row(lane).first(std::size_t(counts[std::size_t(lane)]));
        failure.expect(std::ranges::equal(chosen, expected[std::size_t(n)]), "token ", n, " in lane ", lane,
                       ": expected the choice of the scalar form, found another");
      }
    }
  }
}
}  // namespace detail

/// The first law that a selection breaks, in words; "" where it keeps them.
///
/// For probabilities, with ties, -infinity and NaN among them: at most max_chosen() experts, valid and distinct,
/// nothing written behind them, the same a second time; best first and the lower index of equals, unless `options` say
/// otherwise; all experts where takes_all() is true; in lanes, where the selection has that form, what the scalar form
/// chooses. That takes_all() may be false for a selection that does take all is allowed: it only cannot be merged.
/// Throws what select.check(experts) throws.
///
///     static_assert(mole::SelectPolicy<MySelect, float>);
///     assert(mole::laws::broken_select_law<float>(MySelect{}, 8) == "");
template <class T = double, class Select>
std::string broken_select_law(const Select& select, Index experts, const SelectLawOptions& options = {}) {
  static_assert(SelectPolicy<Select, T>);
  if constexpr (requires { select.check(experts); }) select.check(experts);
  FirstFailure failure("selection from " + std::to_string(experts) + " experts, seed " + std::to_string(options.seed));
  const auto scores = detail::some_scores<T>(experts, options);
  const auto choices = detail::expect_valid_choices(failure, select, scores, experts, options);
  if (!failure.failed()) detail::expect_lane_form(failure, select, scores, experts, choices);
  return failure.text();
}

}  // namespace mole::laws

#include "mole/core/macros_on.hpp"
