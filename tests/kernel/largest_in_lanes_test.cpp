// SPDX-License-Identifier: MIT
#include "mole/kernel/largest_in_lanes.hpp"

#include "kernel/grid.hpp"
#include "support/catch.hpp"

#include <numeric>

using namespace mole;
using namespace mole::test;

namespace {

/// Numbers with many ties and with infinities.
template <class T>
T some_number(Rng& rng) {
  const std::uint64_t number = rng() % 24;
  if (number < 2) return number == 0 ? std::numeric_limits<T>::infinity() : -std::numeric_limits<T>::infinity();
  return T(number) / 4 - 3;
}

template <class T>
bool as_a_sort(Index size, Index k, Rng& rng) {
  using Vector = kernel::Vector<Arch, T>;
  constexpr auto step = std::size_t(kernel::step_of<Arch, T>);
  std::vector<T> numbers(std::size_t(size) * step);
  for (T& number : numbers) number = some_number<T>(rng);
  std::vector<Vector> x;
  for (Index i = 0; i < size; ++i) x.push_back(Vector::load_unaligned(&numbers[std::size_t(i) * step]));
  std::vector<Vector> largest(std::size_t(k) + 1, Vector(T(-77))), position = largest;
  kernel::LargestInLanes<Arch, T>{}(x.data(), size, k, largest.data(), position.data());

  bool right = true;
  for (std::size_t lane = 0; lane < step; ++lane) {
    const auto of_lane = [&](const std::vector<Vector>& vectors, std::size_t j) {
      std::vector<T> lanes(step);
      vectors[j].store_unaligned(lanes.data());
      return lanes[lane];
    };
    std::vector<std::size_t> order(std::size_t(size), 0);
    std::iota(order.begin(), order.end(), std::size_t(0));
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t i, std::size_t j) { return numbers[i * step + lane] > numbers[j * step + lane]; });
    for (std::size_t j = 0; j < std::size_t(k); ++j)
      right &= of_lane(largest, j) == numbers[order[j] * step + lane] && of_lane(position, j) == T(order[j]);
    right &= of_lane(largest, std::size_t(k)) == -77 && of_lane(position, std::size_t(k)) == -77;
  }
  return right;
}

}  // namespace

TEMPLATE_TEST_CASE("The k largest of each lane are those of a stable sort", "[kernel]", float, double) {
  TestRng rng;
  for (Index size : {1, 2, 3, 7, 8, 9, 17, 64, 129})
    for (Index k = 1; k <= std::min(size, kernel::LargestInLanes<Arch, TestType>::most); ++k) {
      CAPTURE(size, k);
      CHECK(as_a_sort<TestType>(size, k, rng));
    }
}
