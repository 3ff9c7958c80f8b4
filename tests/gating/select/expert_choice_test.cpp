// SPDX-License-Identifier: MIT
#include "mole/gating/select/expert_choice.hpp"

#include "mole/gating/gate.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/testing/gating_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"
#include "support/selected.hpp"

using namespace mole;

namespace {

template <class T>
Trace<T> routed(const ExpertChoice& choice, const Matrix<T>& logits, const Pass& pass = {}) {
  return laws::routed(Gate{Softmax{}, choice, Raw{}}, logits, logits.cols(), pass);
}

}  // namespace

TEST_CASE("ExpertChoice gives every expert its best tokens", "[gating]") {
  const auto logits = support::random_matrix<double>(24, 4, 61, 2);
  const auto trace = routed({.factor = 1.5}, logits);
  REQUIRE(trace.routing.pairs() == 4 * 9);
  for (Index e = 0; e < 4; ++e) {
    REQUIRE(trace.routing.load(e) == 9);
    std::vector<bool> taken(24);
    double least = 1;
    for (int p : trace.routing.pairs_of(e)) {
      taken[std::size_t(trace.routing.token(p))] = true;
      least = std::min(least, trace.routing.gate(p));
      CHECK(trace.routing.gate(p) == trace.scores()(trace.routing.token(p), e));
    }
    for (Index n = 0; n < 24; ++n)
      if (!taken[std::size_t(n)]) CHECK(trace.scores()(n, e) <= least);
  }
  for (Index n = 0; n < 24; ++n)
    CHECK(std::is_sorted(trace.routing.experts_of(n).begin(), trace.routing.experts_of(n).end()));
}

TEST_CASE("ExpertChoice takes at least one token and at most all of them", "[gating]") {
  const auto logits = support::random_matrix<float>(3, 8, 62, 2);
  CHECK(routed({.factor = 1}, logits).routing.pairs() == 8);
  const auto all = routed({.factor = 100}, logits);
  CHECK(all.routing.dense());
  CHECK(routed({.factor = 1}, Matrix<float>(0, 8)).routing.pairs() == 0);
  CHECK(support::refuses(ExpertChoice{.factor = 0}, 4));
}

TEST_CASE("ExpertChoice chooses from a sequence by itself, and from tokens that are routed", "[gating]") {
  const auto logits = support::random_matrix<float>(12, 3, 63, 2);
  const Index starts[] = {0, 6};
  std::vector<std::uint8_t> flags(12, 1);
  flags[2] = flags[7] = flags[8] = 0;
  const auto trace = routed({.factor = 1, .per_sequence = true}, logits, {.routed = flags, .sequence_begin = starts});
  Index first = 0, second = 0;
  for (Index p = 0; p < trace.routing.pairs(); ++p) (trace.routing.token(p) < 6 ? first : second) += 1;
  CHECK(first == 3 * 1);   // 5 tokens, 3 experts
  CHECK(second == 3 * 1);  // 4 tokens
  for (Index n : {2, 7, 8}) CHECK(trace.routing.experts_of(n).empty());
}

TEST_CASE("ExpertChoice has room for sequences of one token, each of which every expert takes", "[gating]") {
  for (Index tokens : {1, 7, 8, 9}) {
    std::vector<Index> starts;
    for (Index n = 0; n < tokens; ++n) starts.push_back(n);
    const auto logits = support::random_matrix<float>(tokens, 4, 64, 2);
    const auto trace = routed({.factor = 1, .per_sequence = true}, logits, {.sequence_begin = starts});
    CHECK(trace.routing.pairs() == 4 * tokens);
    CHECK(trace.routing.dense());
  }
}
