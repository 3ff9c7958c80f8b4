// SPDX-License-Identifier: MIT
#include "mole/core/offline_call.hpp"

#include "support/catch.hpp"

#include <vector>

using namespace mole;

namespace {

/// A policy that needs memory.
struct Doubling {
  struct Scratch {
    std::span<int> numbers;
  };
  Scratch scratch(const CallSize&, Arena& arena) const { return {arena.array<int>(5)}; }
  void prepare(auto call) const {
    call.execution.parallel_for(5, [&](Index i) { call.scratch.numbers[std::size_t(i)] = 2 * int(i); });
  }
};

struct Memoryless {};

}  // namespace

TEST_CASE("An offline call has scratch of its own, which stays from call to call", "[core]") {
  const Doubling policy;
  OfflineCall offline(policy);
  policy.prepare(offline.call());
  const std::span<int> numbers = offline.call().scratch.numbers;
  CHECK(std::vector<int>(numbers.begin(), numbers.end()) == std::vector<int>{0, 2, 4, 6, 8});
  CHECK_FALSE(offline.call().pass.training);

  const Memoryless plain;
  OfflineCall without(plain);
  int sum = 0;
  without.call().execution.parallel_for(4, [&](Index i) { sum += int(i); });
  without.call().execution.parallel_for(0, [&](Index) { sum = -1; });
  CHECK(sum == 6);
}
