// SPDX-License-Identifier: MIT
#include "mole/core/unique_number.hpp"

#include "support/catch.hpp"

#include <algorithm>
#include <thread>
#include <vector>

TEST_CASE("No thread draws a number twice, nor one of another thread, nor 0", "[core][threads]") {
  constexpr std::size_t threads = 3, draws = (1 << 20) + 10;  // more than the block of a thread
  std::vector<std::uint64_t> numbers(threads * draws);
  std::vector<std::thread> pool;
  for (std::size_t t = 0; t < threads; ++t)
    pool.emplace_back([&, t] {
      for (std::size_t i = 0; i < draws; ++i) numbers[t * draws + i] = mole::detail::unique_number();
    });
  for (std::thread& thread : pool) thread.join();
  std::ranges::sort(numbers);
  CHECK(std::ranges::adjacent_find(numbers) == numbers.end());
  CHECK(numbers.front() > 0);
}
