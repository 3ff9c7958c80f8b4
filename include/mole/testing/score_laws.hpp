// SPDX-License-Identifier: MIT
// The laws of scores, for every score of the library and a user's own.
#pragma once

#include "mole/gating/score/score_policy.hpp"
#include "mole/kernel/lanes.hpp"
#include "mole/kernel/vector_loops.hpp"
#include "mole/testing/central_differences.hpp"
#include "mole/testing/first_failure.hpp"
#include "mole/testing/random_matrix.hpp"

#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole::laws {

/// What to try a score with, and what it does not promise.
struct ScoreLawOptions {
  Index experts = 6;
  double bound = 2;         ///< logits ~ U(-bound, bound); keep them away from kinks
  double tolerance = 1e-8;  ///< of the gradient, against central differences
  bool excludes = true;     ///< a logit of -infinity has a score of 0 or -infinity; false where a bias is added
  std::uint64_t seed = 51;
};

namespace detail {
template <class Score, class T>
std::vector<T> scores_of(const Score& score, const std::vector<T>& logits, T before = T(99)) {
  std::vector<T> scores(logits.size() + 1, before);  // one more, for a score that writes too many
  score.forward(std::span<const T>(logits), std::span<T>(scores).first(logits.size()));
  scores.pop_back();
  return scores;
}

template <class T>
std::vector<T> random_row(Index size, std::uint64_t seed, double bound) {
  const auto matrix = random_matrix<T>(1, size, seed, bound);
  return {matrix.elements().begin(), matrix.elements().end()};
}

/// Both NaN, or within `roundings` of each other.
template <class T>
bool near(T a, T b, int roundings = 16) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return a == b || std::abs(a - b) <= T(roundings) * std::numeric_limits<T>::epsilon() * std::max(T(1), std::abs(a));
}

/// As many scores as logits, whatever was there and whichever token came before.
template <class T, class Score>
void expect_own_scores(FirstFailure& failure, const Score& score, Index columns, const ScoreLawOptions& options) {
  const auto logits = random_row<T>(columns, options.seed, options.bound);
  const auto first = scores_of(score, logits, T(99)), again = scores_of(score, logits, T(-99));
  scores_of(score, random_row<T>(columns, options.seed + 2, options.bound));
  const auto after_another = scores_of(score, logits);
  std::vector<T> roomy(logits.size() + 1, T(99));
  score.forward(std::span<const T>(logits), std::span<T>(roomy).first(logits.size()));
  failure.expect(roomy.back() == T(99), "expected ", columns, " scores for as many logits, found one behind them");
  for (std::size_t c = 0; c < logits.size(); ++c) {
    failure.expect(std::isfinite(first[c]), "expected a finite score of expert ", c, ", found ", first[c]);
    failure.expect(first[c] == again[c], "expected score ", c, " to be overwritten, found ", first[c], " over 99 and ",
                   again[c], " over -99");
    failure.expect(first[c] == after_another[c], "expected score ", c, " not to depend on other tokens, found ",
                   first[c], " before another one and ", after_another[c], " after it");
  }
}

/// Logits of -infinity: of one expert, and of all.
template <class T, class Score>
void expect_exclusion(FirstFailure& failure, const Score& score, Index columns, const ScoreLawOptions& options) {
  constexpr T infinity = std::numeric_limits<T>::infinity();
  const auto ordinary = random_row<T>(columns, options.seed, options.bound);
  const auto of_ordinary = scores_of(score, ordinary);
  for (const bool all : {false, true})
    for (Index excluded = 0; excluded < options.experts; ++excluded) {
      auto logits = ordinary;
      for (Index e = 0; e < options.experts; ++e)
        if (all || e == excluded) logits[std::size_t(e)] = -infinity;
      const auto scores = scores_of(score, logits);
      std::vector<T> d_logits(logits.size(), T(0)), d_scores = random_row<T>(columns, options.seed + 1, 1);
      score.backward(std::span<const T>(logits), std::span<const T>(scores), std::span<const T>(d_scores),
                     std::span<T>(d_logits));
      const T found = scores[std::size_t(excluded)];
      if (options.excludes)
        failure.expect(found == 0 || found == -infinity, "expected score 0 or -infinity of expert ", excluded,
                       " with a logit of -infinity, found ", found);
      failure.expect(found <= of_ordinary[std::size_t(excluded)], "expected a score of expert ", excluded,
                     " with a logit of -infinity not above that with a finite one, ",
                     of_ordinary[std::size_t(excluded)], ", found ", found);
      for (std::size_t c = 0; c < scores.size(); ++c) {
        const bool finite = std::isfinite(scores[c]) || logits[c] == -infinity;
        failure.expect(finite && !std::isnan(scores[c]), "expert ", excluded,
                       " has a logit of -infinity: expected a finite score ", c, ", found ", scores[c]);
        failure.expect(std::isfinite(d_logits[c]), "expert ", excluded,
                       " has a logit of -infinity: expected a finite gradient of logit ", c, ", found ", d_logits[c]);
      }
    }
}

/// backward adds the derivative of <scores, d_scores> to what is there.
template <class Score>
void expect_derivative(FirstFailure& failure, const Score& score, Index columns, const ScoreLawOptions& options) {
  auto logits = random_row<double>(columns, options.seed, options.bound);
  const auto d_scores = random_row<double>(columns, options.seed + 1, 1), scores = scores_of(score, logits);
  std::vector<double> d_logits(logits.size(), 0.5);
  score.backward(std::span<const double>(logits), std::span<const double>(scores), std::span<const double>(d_scores),
                 std::span<double>(d_logits));
  for (double& d : d_logits) d -= 0.5;
  const auto value = [&] {
    const auto s = scores_of(score, logits);
    double sum = 0;
    for (std::size_t c = 0; c < s.size(); ++c) sum += s[c] * d_scores[c];
    return sum;
  };
  const double error = gradient_error(logits, d_logits, value, 1e-6);
  failure.expect(error < options.tolerance, "expected backward to add the derivative to d_logits, within ",
                 options.tolerance, ", found a difference of ", error);
}

template <class T>
void expect_near(FirstFailure& failure, std::span<const T> expected, std::span<const T> found, int roundings,
                 const char* what) {
  for (std::size_t c = 0; c < expected.size(); ++c)
    failure.expect(near(expected[c], found[c], roundings), what, " ", c, ": expected ", expected[c],
                   " as without vectors, found ", found[c]);
}

/// The forms with vectors: along a row of at least a vector, and with a token in each lane.
template <class T, class Score>
void expect_vector_forms(FirstFailure& failure, const Score& score, Index columns, const ScoreLawOptions& options) {
  using Arch = kernel::DefaultArchitecture;
  using Loops = kernel::VectorLoops<Arch>;
  using Lanes = kernel::Lanes<Arch, T>;
  using Vector = kernel::Vector<Arch, T>;
  const auto logits = random_matrix<T>(Lanes::step, columns, options.seed, options.bound);
  if constexpr (LoopedScorePolicy<Score, T, Loops>)
    if (columns >= Lanes::step) {
      const auto row = random_row<T>(columns, options.seed, options.bound);
      const auto scores = scores_of(score, row), d_scores = random_row<T>(columns, options.seed + 1, 1);
      std::vector<T> found(row.size()), d_expected(row.size(), T(0.5)), d_found = d_expected;
      score.forward(std::span<const T>(row), std::span<T>(found), Loops{});
      score.backward(std::span<const T>(row), std::span<const T>(scores), std::span<const T>(d_scores),
                     std::span<T>(d_expected));
      score.backward(std::span<const T>(row), std::span<const T>(scores), std::span<const T>(d_scores),
                     std::span<T>(d_found), Loops{});
      expect_near<T>(failure, scores, found, 16, "vectors along a row, score");
      expect_near<T>(failure, d_expected, d_found, 256, "vectors along a row, gradient of logit");
    }
  if constexpr (LoopedScorePolicy<Score, Vector>) {
    std::vector<Vector> in(static_cast<std::size_t>(columns)), out(in.size());
    Lanes::gather(logits.data(), columns, Lanes::step, columns, in.data());
    score.forward(std::span<const Vector>(in), std::span<Vector>(out), kernel::ElementLoops{});
    Matrix<T> found(Lanes::step, columns);
    Lanes::scatter(out.data(), Lanes::step, columns, found.data(), columns);
    for (Index n = 0; n < Lanes::step; ++n) {
      const auto row = logits.view().row(n);
      expect_near<T>(failure, scores_of(score, std::vector<T>(row.begin(), row.end())), found.view().row(n), 16,
                     "a token in each lane, score");
    }
  }
}
}  // namespace detail

/// The first law that a score breaks, in words; "" where it keeps them.
///
/// forward writes as many scores as logits, finite for finite ones, over whatever was there, and a token's do not
/// depend on others; an expert with a logit of -infinity stays excluded, and others stay finite, forward and backward;
/// backward accumulates, and is the derivative (in double); the forms with vectors, where the score has them, agree
/// with the scalar one up to rounding. Throws what score.check(experts) throws.  O(E^2) calls, without vectors.
///
///     static_assert(mole::ScorePolicy<MyScore, double>);
///     assert(mole::laws::broken_score_law(MyScore{}) == "");
///     assert(mole::laws::broken_score_law<float>(MyScore{}, {.experts = 64}) == "");
template <class T = double, class Score>
std::string broken_score_law(const Score& score, const ScoreLawOptions& options = {}) {
  static_assert(ScorePolicy<Score, T>);
  if constexpr (requires { score.check(options.experts); }) score.check(options.experts);
  Index columns = options.experts;
  if constexpr (requires { Score::extra; }) columns += Score::extra;
  FirstFailure failure("score of " + std::to_string(options.experts) + " experts, " + std::to_string(columns) +
                       " columns, seed " + std::to_string(options.seed));
  detail::expect_own_scores<T>(failure, score, columns, options);
  detail::expect_exclusion<T>(failure, score, columns, options);
  if constexpr (std::is_same_v<T, double>) detail::expect_derivative(failure, score, columns, options);
  detail::expect_vector_forms<T>(failure, score, columns, options);
  return failure.text();
}

}  // namespace mole::laws

#include "mole/core/macros_on.hpp"
