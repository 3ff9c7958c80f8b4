// SPDX-License-Identifier: MIT
#include "mole/gating/select/top_k.hpp"

#include "mole/testing/select_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

#include <vector>

using namespace mole;

namespace {
template <class T>
std::vector<int> top_k(Index k, std::vector<T> scores) {
  std::vector<int> chosen(std::size_t(k), -1);
  CHECK(TopK{k}.select(std::span<const T>(scores), Index(scores.size()), std::span<int>(chosen)) == k);
  return chosen;
}
}  // namespace

TEMPLATE_TEST_CASE("TopK equals a sort of everything, ties to the lower index", "[gating]", float, double) {
  using T = TestType;
  for (Index experts : {1, 2, 3, 7, 8, 64, 128, 129, 1024})
    for (Index k : {Index(1), Index(2), Index(8), experts / 2, experts}) {
      if (k < 1 || k > experts) continue;
      for (std::uint64_t seed = 0; seed < 4; ++seed) {
        auto random = support::random_matrix<T>(1, experts, seed);
        std::vector<T> scores(random.elements().begin(), random.elements().end());
        if (seed % 2 == 1)
          for (T& score : scores) score = std::round(score * 3);  // many ties
        std::vector<int> sorted(scores.size());
        for (std::size_t e = 0; e < sorted.size(); ++e) sorted[e] = int(e);
        std::stable_sort(sorted.begin(), sorted.end(),
                         [&](int a, int b) { return scores[std::size_t(a)] > scores[std::size_t(b)]; });
        sorted.resize(std::size_t(k));
        INFO("experts " << experts << ", k " << k << ", seed " << seed);
        CHECK(top_k(k, scores) == sorted);
      }
    }
}

TEST_CASE("TopK puts NaN last", "[gating]") {
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  CHECK(top_k<double>(3, {nan, -infinity, 1, nan}) == std::vector<int>{2, 1, 0});
}

TEMPLATE_TEST_CASE("TopK keeps the laws of selections", "[gating]", float, double) {
  const Index experts = GENERATE(1, 2, 7, 40);
  for (Index k : {Index(1), std::min<Index>(2, experts), experts})
    CHECK(laws::broken_select_law<TestType>(TopK{k}, experts) == "");
}
