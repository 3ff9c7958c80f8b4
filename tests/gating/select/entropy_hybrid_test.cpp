// SPDX-License-Identifier: MIT
#include "mole/gating/select/entropy_hybrid.hpp"

#include "mole/gating/gate.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/testing/gating_laws.hpp"
#include "mole/testing/select_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"
#include "support/selected.hpp"

using namespace mole;
using support::selected;
using Ints = std::vector<int>;

TEST_CASE("EntropyHybrid asks everybody when the token is undecided", "[gating]") {
  const std::vector<double> scores{0.643914, 0.236883, 0.087144,
                                   0.032059};  // Tsallis, order 1.1: 0.6772 of its maximum
  const auto hybrid = [](double threshold) { return EntropyHybrid{.threshold = threshold}; };
  CHECK(selected(hybrid(0.68), scores) == Ints{0, 1});
  CHECK(selected(hybrid(0.67), scores) == Ints{0, 1, 2, 3});
  CHECK(selected(hybrid(0), scores) == Ints{0, 1, 2, 3});
  CHECK(selected(hybrid(1), std::vector<double>(4, 0.25)) == Ints{0, 1, 2});  // 0.75 reached, not passed
  CHECK(selected(hybrid(0.999), std::vector<double>(4, 0.25)) == Ints{0, 1, 2, 3});
  EntropyHybrid renyi = hybrid(0.5304);
  renyi.entropy = {.family = EntropyFamily::renyi, .order = 2};
  CHECK(selected(renyi, scores) == Ints{0, 1, 2, 3});
  renyi.threshold = 0.5305;
  CHECK(selected(renyi, scores) == Ints{0, 1});
}

TEST_CASE("EntropyHybrid of a threshold of 1 or more never asks everybody, though a shift lifts the entropy",
          "[gating]") {
  const std::vector<double> even(4, 0.25);
  for (double threshold : {1.0, 1.5}) {
    const EntropyHybrid hybrid{.threshold = threshold, .entropy = {.order = 1, .shift = 1e-2}};
    CHECK(selected(hybrid, even) == Ints{0, 1, 2});
  }
  CHECK(selected(EntropyHybrid{.threshold = 0.999, .entropy = {.order = 1, .shift = 1e-2}}, even) == Ints{0, 1, 2, 3});
}

TEST_CASE("EntropyHybrid refuses options that do not fit", "[gating]") {
  CHECK(support::refuses(EntropyHybrid{.threshold = -0.1}, 4));
  CHECK(support::refuses(EntropyHybrid{.entropy = {.order = 0}}, 4));
  CHECK(support::refuses(EntropyHybrid{}, 1));  // two always stay
}

TEMPLATE_TEST_CASE("A gate of EntropyHybrid keeps the laws of gatings", "[gating]", float, double) {
  const Index experts = GENERATE(2, 8, 129);
  CHECK(laws::broken_gating_law<TestType>(Gate{Softmax{}, EntropyHybrid{}, Raw{}}, experts) == "");
}

TEST_CASE("DynMoLE's weights sum to 1 only where everybody serves", "[gating]") {
  const auto logits = support::random_matrix<double>(200, 6, 31, 1.5);
  const auto trace = laws::routed(Gate{Softmax{}, EntropyHybrid{}, Raw{}}, logits, 6);
  Index all = 0;
  for (Index n = 0; n < 200; ++n) {
    double sum = 0;
    for (double w : trace.routing.gates_of(n)) sum += w;
    const bool everybody = trace.routing.experts_of(n).size() == 6;
    all += everybody;
    CHECK((std::abs(sum - 1) < 1e-12) == everybody);
  }
  CHECK((all > 0 && all < 200));
}

TEMPLATE_TEST_CASE("EntropyHybrid keeps the laws of selections", "[gating]", float, double) {
  const Index experts = GENERATE(2, 7, 40);
  CHECK(laws::broken_select_law<TestType>(EntropyHybrid{}, experts) == "");
}
