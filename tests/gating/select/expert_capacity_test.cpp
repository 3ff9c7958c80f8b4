// SPDX-License-Identifier: MIT
#include "mole/gating/select/expert_capacity.hpp"

#include "mole/gating/gate.hpp"
#include "mole/gating/score/identity.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/testing/gating_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"
#include "support/selected.hpp"

#include <limits>

using namespace mole;

namespace {

/// Who serves each token, as "012" per token.
std::vector<std::string> served(const CapacityOptions& options, Index k, const std::vector<std::vector<double>>& scores,
                                const Pass& pass = {}) {
  Matrix<double> logits(Index(scores.size()), Index(scores.front().size()));
  for (Index n = 0; n < logits.rows(); ++n)
    std::copy(scores[std::size_t(n)].begin(), scores[std::size_t(n)].end(), logits.view().row_data(n));
  const auto trace =
      laws::routed(Gate{Identity{}, ExpertCapacity{TopK{k}, options}, Raw{}}, logits, logits.cols(), pass);
  std::vector<std::string> all;
  for (Index n = 0; n < logits.rows(); ++n) {
    all.emplace_back();
    for (int e : trace.routing.experts_of(n)) all.back() += char('0' + e);
  }
  return all;
}

using Strings = std::vector<std::string>;
const std::vector<std::vector<double>> crowd{{5, 1, 0}, {7, 6, 0}, {6, 0, 2}, {8, 7, 0}};

}  // namespace

TEST_CASE("ExpertCapacity keeps by position, probability or batch", "[gating]") {
  CHECK(served({.fixed = 2}, 1, crowd) == Strings{"0", "0", "", ""});
  CHECK(served({.fixed = 2, .priority = CapacityPriority::probability}, 1, crowd) == Strings{"", "0", "", "0"});
  CHECK(served({.fixed = 2, .priority = CapacityPriority::batch}, 1, crowd) == Strings{"", "0", "", "0"});
  // Second choices come after all first ones: expert 1 takes token 0 before token 1, and is full before token 3.
  CHECK(served({.fixed = 2}, 2, crowd) == Strings{"01", "01", "2", ""});
  CHECK(served({.fixed = 2, .priority = CapacityPriority::batch}, 2, crowd) == Strings{"", "01", "2", "01"});
  CHECK(served({.fixed = 1, .priority = CapacityPriority::probability}, 2, crowd) == Strings{"", "", "2", "01"});
  CHECK(served({.fixed = 4}, 2, crowd) == Strings{"01", "01", "02", "01"});
}

TEST_CASE("ExpertCapacity by batch orders all choices of a token by its best one", "[gating]") {
  // Both want expert 2 second: the token that is surer of its first choice gets it, however small its score of this.
  CHECK(served({.fixed = 1, .priority = CapacityPriority::batch}, 2, {{.9, 0, .1}, {0, .8, .5}}) == Strings{"02", "1"});
  CHECK(served({.fixed = 1, .priority = CapacityPriority::probability}, 2, {{.9, 0, .1}, {0, .8, .5}}) ==
        Strings{"0", "12"});
}

TEST_CASE("ExpertCapacity by token counts all choices of a token before those of the next", "[gating]") {
  // Expert 1 is the second choice of token 0 and the first of token 1.
  const std::vector<std::vector<double>> scores{{.9, .1, 0}, {0, .8, .5}};
  CHECK(served({.fixed = 1, .priority = CapacityPriority::token}, 2, scores) == Strings{"01", "2"});
  CHECK(served({.fixed = 1, .priority = CapacityPriority::position}, 2, scores) == Strings{"0", "12"});
}

TEST_CASE("ExpertCapacity draws who stays in training, by the key of the pass, and keeps positions in inference",
          "[gating]") {
  const std::vector<std::vector<double>> scores(40, {1, 0});  // all want expert 0
  const CapacityOptions options{.fixed = 10, .priority = CapacityPriority::random};
  const auto kept = [&](const Pass& pass) {
    std::vector<Index> tokens;
    const auto experts = served(options, 1, scores, pass);
    for (Index n = 0; n < 40; ++n)
      if (!experts[std::size_t(n)].empty()) tokens.push_back(n);
    return tokens;
  };
  const auto first_ten = kept({});
  CHECK(first_ten == std::vector<Index>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  CHECK(kept({.seed = 7}) == first_ten);
  std::vector<int> times(40);
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    const auto tokens = kept({.training = true, .seed = seed});
    REQUIRE(tokens.size() == 10);
    for (Index n : tokens) ++times[std::size_t(n)];
  }
  // 400 draws with probability 1/4: mean 100, deviation 8.7
  for (int t : times) CHECK(std::abs(t - 100) < 45);
  CHECK(kept({.training = true, .seed = 3}) == kept({.training = true, .seed = 3}));
  CHECK(kept({.training = true, .seed = 3}) != kept({.training = true, .seed = 3, .step = 1}));
  CHECK(kept({.training = true, .seed = 3}) != kept({.training = true, .seed = 3, .layer = 1}));
}

TEST_CASE("ExpertCapacity rounds as the releases do", "[gating]") {
  const auto capacity = [](const CapacityOptions& options, Index k, Index tokens, Index experts) {
    return ExpertCapacity{TopK{k}, options}.capacity(tokens, k * tokens, experts);
  };
  // DeepSpeed: ceil(17 / 5 * 0.7 * 3) = ceil(7.14);  MegaBlocks: int(7.14);  Tutel: 3 * int(0.7 * 4) = 3 * int(2.8)
  CHECK(capacity({.factor = 0.7}, 3, 17, 5) == 8);
  CHECK(capacity({.factor = 0.7, .rounding = CapacityRounding::down}, 3, 17, 5) == 7);
  CHECK(capacity({.factor = 0.7, .rounding = CapacityRounding::of_each_choice}, 3, 17, 5) == 6);
  CHECK(capacity({.factor = 0.7, .multiple = 4}, 3, 17, 5) == 8);
  CHECK(capacity({.factor = 0.7, .multiple = 5}, 3, 17, 5) == 10);
  CHECK(capacity({.factor = 1, .rounding = CapacityRounding::of_each_choice}, 2, 9, 4) == 6);  // NLLB: 2 ceil(9 / 4)
  CHECK(capacity({.factor = 0.1, .min = 0, .rounding = CapacityRounding::down}, 1, 9, 4) == 0);
  CHECK(capacity({.factor = 0.1, .min = 4}, 1, 9, 4) == 4);
  CHECK(capacity({.factor = 1e300}, 2, 9, 4) == 18);
  CHECK(capacity({.factor = 1}, 2, 0, 4) == 1);
  CHECK(capacity({.factor = 9, .multiple = 4, .fixed = 3}, 2, 9, 4) == 3);
}

TEST_CASE("ExpertCapacity keeps the smaller of capacity and choices, whatever the priority and rounding", "[gating]") {
  const auto logits = support::random_matrix<double>(60, 5, 65, 2);
  const auto free = laws::routed(Gate{Identity{}, TopK{2}, Raw{}}, logits, 5);
  for (auto priority : {CapacityPriority::position, CapacityPriority::token, CapacityPriority::probability,
                        CapacityPriority::batch, CapacityPriority::random})
    for (auto rounding : {CapacityRounding::up, CapacityRounding::down, CapacityRounding::of_each_choice}) {
      const ExpertCapacity select{TopK{2}, CapacityOptions{.factor = 0.8, .priority = priority, .rounding = rounding}};
      const auto trace = laws::routed(Gate{Identity{}, select, Raw{}}, logits, 5, {.training = true});
      CAPTURE(int(priority), int(rounding));
      for (Index e = 0; e < 5; ++e)
        CHECK(trace.routing.load(e) == std::min(select.capacity(60, 120, 5), free.routing.load(e)));
    }
}

TEST_CASE("ExpertCapacity takes its capacity from an even share", "[gating]") {
  // 8 choices, 3 experts: 2.67 an expert
  CHECK(served({.factor = 1}, 2, crowd) == served({.fixed = 3}, 2, crowd));
  CHECK(served({.factor = 0.5}, 2, crowd) == served({.fixed = 2}, 2, crowd));
  CHECK(served({.factor = 0.01, .min = 2}, 2, crowd) == served({.fixed = 2}, 2, crowd));
}

TEST_CASE("ExpertCapacity gives each sequence a capacity of its own, and none to tokens that are not routed",
          "[gating]") {
  const Index starts[] = {0, 2};
  CHECK(served({.fixed = 1, .per_sequence = true}, 1, crowd, {.sequence_begin = starts}) == Strings{"0", "", "0", ""});
  const std::vector<std::uint8_t> flags{0, 1, 1, 1};
  CHECK(served({.fixed = 2}, 1, crowd, {.routed = flags}) == Strings{"", "0", "0", ""});
}

TEST_CASE("ExpertCapacity serves each sequence as it serves that sequence alone", "[gating]") {
  std::vector<std::vector<double>> scores = crowd;
  scores.insert(scores.end(), {{2, 8, 1}, {3, 1, 2}, {9, 1, 8}, {0, 5, 6}, {4, 3, 2}});
  const std::vector<Index> starts{0, 1, 1, 3, 6, 9};  // of 1, 0, 2, 3, 3 and 0 tokens
  for (auto priority :
       {CapacityPriority::position, CapacityPriority::token, CapacityPriority::probability, CapacityPriority::batch})
    for (Index k : {1, 2, 3})
      for (Index fixed : {0, 1, 2}) {
        const CapacityOptions options{.fixed = fixed, .priority = priority, .per_sequence = true};
        Strings expected;
        for (std::size_t s = 0; s < starts.size(); ++s) {
          const auto end = s + 1 < starts.size() ? starts[s + 1] : Index(scores.size());
          if (end == starts[s]) continue;
          for (const auto& one : served(options, k, {scores.begin() + starts[s], scores.begin() + end}))
            expected.push_back(one);
        }
        CAPTURE(int(priority), k, fixed);
        CHECK(served(options, k, scores, {.sequence_begin = starts}) == expected);
      }
}

TEST_CASE("ExpertCapacity with room for all is the selection alone", "[gating]") {
  const auto logits = support::random_matrix<float>(50, 7, 64, 2);
  const auto limited =
      laws::routed(Gate{Softmax{}, ExpertCapacity{TopK{3}, CapacityOptions{.factor = 7}}, Raw{}}, logits, 7);
  const auto free = laws::routed(Gate{Softmax{}, TopK{3}, Raw{}}, logits, 7);
  CHECK(laws::choices(limited) == laws::choices(free));
}

TEST_CASE("ExpertCapacity refuses options that do not fit", "[gating]") {
  CHECK(support::refuses(ExpertCapacity{TopK{2}, CapacityOptions{.factor = 0}}, 4));
  CHECK(support::refuses(ExpertCapacity{TopK{2}, CapacityOptions{.min = -1}}, 4));
  CHECK(support::refuses(ExpertCapacity{TopK{2}, CapacityOptions{.multiple = 0}}, 4));
  CHECK(support::refuses(ExpertCapacity{TopK{5}}, 4));
}

TEST_CASE("A capacity beyond every number of pairs is one for all of them", "[gating]") {
  constexpr Index most = std::numeric_limits<Index>::max();
  for (const Index multiple : {Index(1), Index(2), Index(64), most}) {
    const ExpertCapacity select{TopK{1}, {.min = most, .multiple = multiple}};
    select.check(10);
    CHECK(select.capacity(100, 100, 10) >= 100);
  }
  const ExpertCapacity large{TopK{1}, {.min = 1, .multiple = most}};
  CHECK(large.capacity(100, 100, 10) == most);
}
