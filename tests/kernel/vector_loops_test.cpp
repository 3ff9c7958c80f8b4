// SPDX-License-Identifier: MIT
#include "mole/kernel/vector_loops.hpp"

#include "kernel/grid.hpp"
#include "mole/kernel/element_loops.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace mole::test;

namespace {

template <class T>
std::vector<Index> row_sizes() {
  constexpr Index step = kernel::step_of<Arch, T>;
  std::vector<Index> sizes;
  for (Index size = step; size <= 3 * step + 2; ++size) sizes.push_back(size);
  return sizes;
}

const kernel::ElementLoops elements;
const kernel::VectorLoops<Arch> vectors;

}  // namespace

TEMPLATE_TEST_CASE("Vectors of a row give the largest element wherever it lies", "[kernel]", float, double) {
  using T = TestType;
  for (Index size : row_sizes<T>())
    for (std::size_t at = 0; at < std::size_t(size); ++at) {
      std::vector<T> x(std::size_t(size), T(-3));
      x[at] = -2;
      CHECK(vectors.largest(std::span<const T>(x)) == -2);
      CHECK(elements.largest(std::span<const T>(x)) == -2);
      CHECK_FALSE(vectors.all(std::span<const T>(x), [](const auto& v) { return v < T(-2.5); }));
      CHECK(vectors.all(std::span<const T>(x), [](const auto& v) { return v < T(-1.5); }));
    }
}

TEMPLATE_TEST_CASE("Vectors of a row count every element once", "[kernel]", float, double) {
  using T = TestType;
  TestRng rng;
  for (Index size : row_sizes<T>()) {
    std::vector<T> x(std::size_t(size), T(0)), y = x;
    T sum = 0, dot = 0;  // of small integers: exact
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] = T(rng() % 100), y[i] = T(rng() % 100);
      sum += x[i];
      dot += x[i] * y[i];
    }
    const std::span<const T> of_x(x), of_y(y);
    CAPTURE(size);
    CHECK(vectors.sum(of_x) == sum);
    CHECK(elements.sum(of_x) == sum);
    CHECK(vectors.dot(of_x, of_y) == dot);
    CHECK(elements.dot(of_x, of_y) == dot);
    const auto product = [](const auto& a, const auto& b) { return a * b; };
    CHECK(vectors.sum_of(product, of_x, of_y) == dot);
    CHECK(elements.sum_of(product, of_x, of_y) == dot);
    CHECK(vectors.sum_of([](const auto& a) { return a + a; }, of_x) == 2 * sum);
  }
}

TEMPLATE_TEST_CASE("Vectors of a row set and add every element once, in place, too", "[kernel]", float, double) {
  using T = TestType;
  TestRng rng;
  const auto f = [](const auto& a, const auto& b) { return a * b - b; };
  for (Index size : row_sizes<T>())
    for (Index before : {0, 1}) {
      auto x = random_input<T>(1, size, rng, {.before = before});
      const auto y = random_input<T>(1, size, rng, {.before = 1 - before});
      auto by_vectors = random_output<T>(1, size, rng, {.before = before, .after = 1}), by_elements = by_vectors;
      const std::span<const T> of_x(x.row(0), std::size_t(size)), of_y(y.row(0), std::size_t(size));
      const auto agree = [&](auto call) {
        call(vectors, std::span<T>(by_vectors.row(0), std::size_t(size)));
        call(elements, std::span<T>(by_elements.row(0), std::size_t(size)));
        return by_vectors.intact() && difference(by_vectors.view(), by_elements.view()) <= Tolerance<T>::product;
      };
      CAPTURE(size, before);
      CHECK(agree([&](const auto& loops, std::span<T> out) { loops.set(out, f, of_x, of_y); }));
      CHECK(agree([&](const auto& loops, std::span<T> out) { loops.add(out, f, of_x, of_y); }));
      CHECK(agree([&](const auto& loops, std::span<T> out) { loops.set(out, f, out, of_y); }));
      CHECK(agree([&](const auto& loops, std::span<T> out) { loops.add(out, f, out, of_y); }));
    }
}
