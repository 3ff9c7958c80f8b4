// SPDX-License-Identifier: MIT
#include "mole/surgery/adapters_of.hpp"

#include "mole/mole.hpp"
#include "support/catch.hpp"
#include "surgery/adapters.hpp"

using namespace mole;
using namespace mole::test;

namespace {
template <class Experts>
void check_adapters_of(const Experts& experts) {
  const auto adapters = adapters_of(experts);
  REQUIRE(Index(adapters.size()) == experts.experts());
  for (Index e = 0; e < experts.experts(); ++e) {
    const auto& adapter = adapters[std::size_t(e)];
    CHECK(adapter.rank() == experts.blocks().size(e));
    Matrix<double> expected(experts.out(), experts.in());
    experts.add_delta(e, 1, expected.view());
    CHECK(support::largest_difference(update_of(adapter), expected) < 1e-14);
  }
}
}  // namespace

TEST_CASE("Each expert as an adapter adds what it did: ragged, shared, gated and sparse ones", "[surgery]") {
  Rng rng(3);
  for (const bool shared : {false, true}) {
    LowRank<DenseFactors<double>> experts({.in = 7,
                                           .out = 5,
                                           .experts = 3,
                                           .rank = 2,
                                           .ranks = shared ? std::vector<int>{} : std::vector<int>{2, 0, 3},
                                           .alpha = 4,
                                           .shared_down = shared},
                                          rng);
    fill_uniform(experts.parameters().lora_B.view(), 1, rng);
    check_adapters_of(experts);
  }
  LowRank<GatedRanks<double>> gated({.in = 7, .out = 5, .experts = 2, .rank = 3, .alpha = 2}, rng);
  fill_uniform(gated.parameters().lora_B.view(), 1, rng);
  check_adapters_of(gated);
  LowRank<SparseProjection<double>> sparse({.in = 7, .out = 5, .experts = 4, .nonzeros = 2, .alpha = 2}, rng);
  fill_uniform(sparse.parameters().lora_B.view(), 1, rng);
  check_adapters_of(sparse);
}
