// SPDX-License-Identifier: MIT
#include "mole/gating/score/softmax_over_tokens.hpp"

#include "mole/gating/gate.hpp"
#include "mole/gating/select/all.hpp"
#include "mole/gating/select/expert_choice.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/testing/gating_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"
#include "support/selected.hpp"

#include <cmath>
#include <limits>

using namespace mole;

namespace {

const std::vector<Index> sequence_starts{0, 3, 3, 7};

Matrix<double> scores_of(const SoftmaxOverTokens& score, const Matrix<double>& logits, const Pass& pass = {}) {
  Matrix<double> scores(logits.rows(), logits.cols());
  fill(scores.view(), 99.0);
  score.forward_whole_call(logits.view(), scores.view(), pass);
  return scores;
}

/// exp(logit / temperature) / sum, in plain loops and long double.
double share_of_token(const Matrix<double>& logits, Index n, Index e, Index first, Index end, double temperature) {
  long double sum = 0;
  for (Index m = first; m < end; ++m) sum += std::exp((long double)(logits(m, e)) / temperature);
  return double(std::exp((long double)(logits(n, e)) / temperature) / sum);
}

}  // namespace

TEST_CASE("SoftmaxOverTokens shares each expert out among the tokens of a call, or of each sequence", "[gating]") {
  const auto logits = support::random_matrix<double>(9, 3, 81, 3);
  const auto all = scores_of({.temperature = 0.5}, logits);
  const auto apart = scores_of({.per_sequence = true}, logits, {.sequence_begin = sequence_starts});
  for (Index n = 0; n < 9; ++n)
    for (Index e = 0; e < 3; ++e) {
      CHECK(std::abs(all(n, e) - share_of_token(logits, n, e, 0, 9, 0.5)) < 1e-14);
      const Index first = n < 3 ? 0 : n < 7 ? 3 : 7, end = n < 3 ? 3 : n < 7 ? 7 : 9;
      CHECK(std::abs(apart(n, e) - share_of_token(logits, n, e, first, end, 1)) < 1e-14);
    }
  CHECK(scores_of({}, Matrix<double>(0, 3)).rows() == 0);
  CHECK(support::refuses(SoftmaxOverTokens{.temperature = 0}, 4));
}

TEST_CASE("SoftmaxOverTokens leaves out tokens that do not choose, excluded experts and NaN", "[gating]") {
  const double nan = std::numeric_limits<double>::quiet_NaN(), none = -std::numeric_limits<double>::infinity();
  Matrix<double> logits(5, 2);
  logits(0, 0) = 1e4, logits(1, 0) = nan, logits(2, 0) = none, logits(3, 0) = 1e4, logits(4, 0) = -1e4;
  for (Index n = 0; n < 5; ++n) logits(n, 1) = none;
  const std::vector<int> forced{-1, -1, -1, -1, 0};
  const std::vector<std::uint8_t> routed{1, 1, 1, 1, 1};
  const auto scores = scores_of({}, logits, {.routed = routed, .forced = forced});
  CHECK(scores(0, 0) == 0.5);
  CHECK(std::isnan(scores(1, 0)));
  CHECK(scores(2, 0) == 0);
  CHECK(scores(3, 0) == 0.5);
  for (Index n = 0; n < 5; ++n) CHECK(scores(n, 1) == 0);
  CHECK(scores(4, 0) == 0);
  const std::vector<std::uint8_t> first_out{0, 1, 1, 1, 1};
  CHECK(scores_of({}, logits, {.routed = first_out, .forced = forced})(3, 0) == 1);
}

TEST_CASE("SoftmaxOverTokens has the gradient of its value in a gate", "[gating]") {
  auto logits = support::random_matrix<double>(9, 3, 82, 2);
  const auto upstream = support::random_matrix<double>(9, 3, 83, 1);
  const std::vector<std::uint8_t> routed{1, 1, 0, 1, 1, 1, 1, 1, 1};
  for (const bool per_sequence : {false, true}) {
    const Gate gate{SoftmaxOverTokens{.temperature = 0.7, .per_sequence = per_sequence},
                    ExpertChoice{.factor = 1.5, .per_sequence = per_sequence}, Raw{}};
    const Pass pass{.routed = routed, .sequence_begin = sequence_starts};
    const auto value = [&] {
      const auto trace = laws::routed(gate, logits, 3, pass);
      double sum = 0;
      for (Index p = 0; p < trace.routing.pairs(); ++p)
        sum += trace.routing.gate(p) * upstream(trace.routing.token(p), trace.routing.expert(p));
      return sum;
    };
    auto trace = laws::routed(gate, logits, 3, pass);
    for (Index p = 0; p < trace.routing.pairs(); ++p)
      trace.d_gate()[std::size_t(p)] = upstream(trace.routing.token(p), trace.routing.expert(p));
    const CallSize size{.tokens = 9, .pairs = gate.max_pairs(9, 3), .experts = 3, .columns = 3};
    laws::Harness harness(gate, size, pass);
    gate.backward(trace, harness.call());
    for (Index n = 0; n < 9; ++n)
      for (Index e = 0; e < 3; ++e) {
        const double kept = logits(n, e), step = 1e-6;
        logits(n, e) = kept + step;
        const double above = value();
        logits(n, e) = kept - step;
        const double derivative = (above - value()) / (2 * step);
        logits(n, e) = kept;
        CHECK(std::abs(trace.d_logits()(n, e) - derivative) < 1e-9);
      }
  }
}

TEST_CASE("SoftmaxOverTokens keeps the laws of gatings under selections of either kind", "[gating]") {
  CHECK(laws::broken_gating_law<double>(Gate{SoftmaxOverTokens{}, ExpertChoice{}, Raw{}}, 4, {.whole_call = true}) ==
        "");
  CHECK(laws::broken_gating_law<double>(Gate{SoftmaxOverTokens{}, TopK{2}, Raw{}}, 4, {.whole_call = true}) == "");
}
