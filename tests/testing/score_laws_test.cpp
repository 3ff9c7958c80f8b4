// SPDX-License-Identifier: MIT
#include "mole/testing/score_laws.hpp"

#include "support/catch.hpp"
#include "testing/unsaid.hpp"

using namespace mole;
using test::unsaid;

namespace {

enum class ScoreFault {
  none,
  not_finite,
  adds,
  too_many,
  remembers,
  includes,
  rises,
  spreads,
  infinite_gradient,
  derivative,
  overwrites,
  rows,
  rows_backward,
  lanes
};

/// score = logit, with a fault; also in vectors.
struct FaultyScore {
  ScoreFault fault = ScoreFault::none;
  mutable double seen = 0, tokens = 0;

  template <class V, class Loops = kernel::ElementLoops>
  void forward(std::span<const V> logits, std::span<V> scores, const Loops& loops = {}) const {
    [[maybe_unused]] const V before = scores[0];
    loops.set(
        scores, [](const auto& logit) { return logit; }, logits);
    if constexpr (!std::is_same_v<V, double>) {
      if (fault == ScoreFault::lanes) scores[0] += V(1);
    } else if constexpr (std::is_same_v<Loops, kernel::ElementLoops>) {
      if (fault == ScoreFault::adds) scores[0] += before;
      spoil(logits, scores);
    } else if (fault == ScoreFault::rows) {
      scores[1] += 1;
    }
  }

  template <class V, class Loops = kernel::ElementLoops>
  void backward(std::span<const V> logits, std::span<const V>, std::span<const V> d_scores, std::span<V> d_logits,
                const Loops& loops = {}) const {
    if constexpr (std::is_same_v<V, double>) {
      const bool in_rows = !std::is_same_v<Loops, kernel::ElementLoops>;
      if (fault == ScoreFault::overwrites) std::fill(d_logits.begin(), d_logits.end(), 0.0);
      if (fault == ScoreFault::derivative || (fault == ScoreFault::rows_backward && in_rows))
        d_logits[0] += d_scores[0];
      if (fault == ScoreFault::infinite_gradient) d_logits[2] += logits[2] * 0;
    }
    loops.add(
        d_logits, [](const auto& d_score) { return d_score; }, d_scores);
  }

  void spoil(std::span<const double> logits, std::span<double> scores) const {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    const bool any = std::count(logits.begin(), logits.end(), -infinity) > 0;
    if (fault == ScoreFault::not_finite) scores[0] = std::numeric_limits<double>::quiet_NaN();
    if (fault == ScoreFault::too_many) scores.data()[scores.size()] = 7;
    if (std::exchange(seen, logits[1]) != logits[1]) ++tokens;
    if (fault == ScoreFault::remembers) scores[1] += tokens;
    if (fault == ScoreFault::includes && logits[0] == -infinity) scores[0] = -5;
    if (fault == ScoreFault::rises) scores[1] = logits[1] == -infinity ? 0 : -1;
    if (fault == ScoreFault::spreads && any) scores.back() = -infinity;
  }
};
static_assert(ScorePolicy<FaultyScore, double>);
static_assert(LoopedScorePolicy<FaultyScore, kernel::Vector<kernel::DefaultArchitecture, double>>);

std::string broken(ScoreFault fault, const laws::ScoreLawOptions& options = {}) {
  return laws::broken_score_law(FaultyScore{fault}, options);
}

}  // namespace

TEST_CASE("The laws of scores name the one that is broken", "[testing]") {
  CHECK(broken(ScoreFault::none) == "");
  CHECK(unsaid(broken(ScoreFault::not_finite),
               {"score of 6 experts, 6 columns, seed 51", "finite score of expert 0"}) == "");
  CHECK(unsaid(broken(ScoreFault::adds), {"expected score 0 to be overwritten", "over 99 and", "over -99"}) == "");
  CHECK(unsaid(broken(ScoreFault::too_many), {"expected 6 scores for as many logits, found one behind them"}) == "");
  CHECK(unsaid(broken(ScoreFault::remembers), {"expected score 1 not to depend on other tokens"}) == "");
  CHECK(unsaid(broken(ScoreFault::derivative), {"expected backward to add the derivative to d_logits, within 1e-08"}) ==
        "");
  CHECK(unsaid(broken(ScoreFault::overwrites), {"expected backward to add the derivative", "difference of 0.5"}) == "");
}

TEST_CASE("The laws of scores name an expert that is excluded and is not", "[testing]") {
  CHECK(unsaid(broken(ScoreFault::includes),
               {"score 0 or -infinity of expert 0 with a logit of -infinity, found -5"}) == "");
  CHECK(broken(ScoreFault::includes, {.excludes = false}) == "");
  CHECK(unsaid(broken(ScoreFault::rises), {"a score of expert 1 with a logit of -infinity not above", "-1, found 0"}) ==
        "");
  CHECK(unsaid(broken(ScoreFault::spreads), {"expert 0 has a logit of -infinity: expected a finite score 5"}) == "");
  CHECK(unsaid(broken(ScoreFault::infinite_gradient), {"expected a finite gradient of logit 2"}) == "");
}

TEST_CASE("The laws of scores compare the forms with vectors", "[testing]") {
  const laws::ScoreLawOptions wide{.experts = 16};
  CHECK(broken(ScoreFault::none, wide) == "");
  CHECK(unsaid(broken(ScoreFault::rows, wide), {"vectors along a row, score 1: expected", "as without vectors"}) == "");
  CHECK(unsaid(broken(ScoreFault::rows_backward, wide), {"vectors along a row, gradient of logit 0: expected"}) == "");
  CHECK(unsaid(broken(ScoreFault::lanes), {"a token in each lane, score 0: expected"}) == "");
}
