// SPDX-License-Identifier: MIT
#include "mole/core/unique_number.hpp"

#include "support/catch.hpp"

#include <algorithm>
#include <thread>
#include <vector>

namespace {

/// Numbers that one thread drew one after the other.
struct Run {
  std::uint64_t first, last;
};

}  // namespace

TEST_CASE("No thread draws a number twice, nor one of another thread, nor 0", "[core][threads]") {
  constexpr std::size_t threads = 3, draws = (1 << 20) + 10;  // more than the block of a thread
  std::vector<std::vector<Run>> runs_of(threads);
  std::vector<std::thread> pool;
  for (std::vector<Run>& runs : runs_of)
    pool.emplace_back([&runs] {
      for (std::size_t i = 0; i < draws; ++i) {
        const std::uint64_t number = mole::detail::unique_number();
        if (!runs.empty() && number == runs.back().last + 1)
          ++runs.back().last;
        else
          runs.push_back({number, number});
      }
    });
  for (std::thread& thread : pool) thread.join();
  std::vector<Run> all;
  for (const std::vector<Run>& runs : runs_of) all.insert(all.end(), runs.begin(), runs.end());
  std::ranges::sort(all, {}, &Run::first);
  CHECK(all.front().first > 0);
  std::size_t numbers = 0;
  for (std::size_t r = 0; r < all.size(); ++r) {
    CHECK((r == 0 || all[r - 1].last < all[r].first));
    numbers += std::size_t(all[r].last - all[r].first + 1);
  }
  CHECK(numbers == threads * draws);
}
