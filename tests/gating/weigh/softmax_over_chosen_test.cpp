// SPDX-License-Identifier: MIT
#include "mole/gating/weigh/softmax_over_chosen.hpp"

#include "mole/execution/simd.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/identity.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/testing/gating_laws.hpp"
#include "mole/testing/weigh_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <numeric>

using namespace mole;

namespace {

std::vector<double> weights(const SoftmaxOverChosen& weigh, const std::vector<double>& scores,
                            const std::vector<int>& chosen, const Pass& pass = {}) {
  std::vector<double> result(chosen.size());
  weigh.forward(std::span<const double>(scores), std::span<const int>(chosen), std::span<double>(result), pass);
  return result;
}

}  // namespace

TEST_CASE("SoftmaxOverChosen is the softmax of the chosen scores", "[gating]") {
  const auto w = weights({.temperature = 0.5}, {2, 9, 1.5, 1}, {0, 3, 2});
  CHECK(std::abs(w[0] - 0.66524096) < 1e-8);
  CHECK(std::abs(w[1] - 0.09003057) < 1e-8);
  CHECK(std::abs(w[2] - 0.24472847) < 1e-8);
  CHECK(weights({}, {-4, 3}, {0}) == std::vector<double>{1});
  CHECK(weights({}, {-4, 3}, {}).empty());
}

TEST_CASE("SoftmaxOverChosen takes scores of any size", "[gating]") {
  CHECK(weights({.temperature = 1e-3}, {1e4, 0, -1e4}, {0, 1, 2}) == std::vector<double>{1, 0, 0});
  constexpr double infinity = std::numeric_limits<double>::infinity();
  CHECK(weights({}, {-infinity, 2}, {0, 1}) == std::vector<double>{0, 1});
  CHECK(weights({}, {-infinity, -infinity}, {0, 1}) == std::vector<double>{0, 0});
}

TEST_CASE("The threshold of SoftmaxOverChosen acts in inference only, and shares nothing out", "[gating]") {
  const SoftmaxOverChosen plain{.temperature = 0.5}, cut{.temperature = 0.5, .min_score = 1.5};
  const std::vector<double> scores{2, 9, 1.5, 1};
  const auto all = weights(plain, scores, {0, 3, 2}), kept = weights(cut, scores, {0, 3, 2});
  CHECK(kept == std::vector<double>{all[0], 0, all[2]});  // a score equal to the threshold stays
  CHECK(weights(cut, scores, {0, 3, 2}, {.training = true}) == all);
  CHECK(weights(cut, {1, 1}, {0, 1}) == std::vector<double>{0, 0});
}

TEST_CASE("SoftmaxOverChosen's gradient is its derivative, with a threshold and without", "[gating]") {
  CHECK(laws::broken_weigh_law(SoftmaxOverChosen{}, {.columns = 6, .chosen = {4, 0, 1}}) == "");
  CHECK(laws::broken_weigh_law(SoftmaxOverChosen{.temperature = 0.2},
                               {.columns = 6, .chosen = {4, 0, 1, 5}, .tolerance = 1e-7}) == "");
  CHECK(laws::broken_weigh_law(SoftmaxOverChosen{}, {.columns = 4, .chosen = {2}}) == "");
  for (double min_score : {0.3, 0.5, 0.7, 9.0}) {
    const SoftmaxOverChosen cut{.temperature = 0.5, .min_score = min_score};
    CHECK(laws::broken_weigh_law(cut, {.columns = 6, .chosen = {4, 0, 1, 5}}) == "");
  }
}

TEST_CASE("SoftmaxOverChosen refuses temperatures not above 0 and a threshold of NaN", "[gating]") {
  CHECK_THROWS_AS(SoftmaxOverChosen{.temperature = 0}.check(4), Error);
  CHECK_THROWS_AS(SoftmaxOverChosen{.temperature = std::nan("")}.check(4), Error);
  CHECK_THROWS_AS(SoftmaxOverChosen{.min_score = std::nan("")}.check(4), Error);
}

TEMPLATE_TEST_CASE("A softmax over the chosen logits is the renormalized softmax of all, and its laws", "[gating]",
                   float, double) {
  using T = TestType;
  const Index experts = GENERATE(1, 3, 8, 129);
  const Index k = std::min<Index>(experts, GENERATE(1, 2, 8));
  const Gate gate{Identity{}, TopK{k}, SoftmaxOverChosen{}};
  CHECK(laws::broken_gating_law<T>(gate, experts) == "");
  const auto logits = support::random_matrix<T>(20, experts, 1, 3);
  const auto found = laws::routed(gate, logits, experts),
             expected = laws::routed(Gate{Softmax{}, TopK{k}, Renormalized{}}, logits, experts);
  for (Index p = 0; p < found.routing.pairs(); ++p) {
    CHECK(found.routing.expert(p) == expected.routing.expert(p));
    CHECK(std::abs(found.routing.gate(p) - expected.routing.gate(p)) < 4 * std::numeric_limits<T>::epsilon());
  }
}

TEMPLATE_TEST_CASE("A gate hands its batch to a weighing that asks for it, forward and backward", "[gating]", Reference,
                   Simd<>) {
  const Gate gate{Identity{}, TopK{3}, SoftmaxOverChosen{.temperature = 0.7, .min_score = 0.2}};
  auto layer = support::routed_layer<double>({}, gate, TestType{});
  const auto x = support::random_matrix<double>(9, 11, 1);
  Matrix<double> y(9, 13);
  auto work = layer.workspace(9);
  for (bool training : {false, true}) {
    layer.forward(x, y, work, {.training = training});
    Index below_one = 0;
    for (Index n = 0; n < 9; ++n) {
      const auto w = work.routing.gates_of(n);
      const double sum = std::accumulate(w.begin(), w.end(), 0.0);
      CHECK(sum < 1 + 1e-12);
      below_one += sum < 0.999;
    }
    CHECK((below_one > 0) == !training);
    const auto report = check_gradients(layer, {.pass = {.training = training}});
    CAPTURE(training, report.worst_tensor);
    CHECK(report.worst < 1e-8);
  }
}
