// SPDX-License-Identifier: MIT
#include "mole/factors/frozen_pair.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"

using namespace mole;

namespace {

double largest(const Matrix<float>& table) {
  double most = 0;
  for (float element : table.elements()) most = std::max(most, std::abs(double(element)));
  return most;
}

}  // namespace

TEST_CASE("A random pair is uniform within the bounds of its fans", "[factors]") {
  Rng rng(1);
  const auto pair = FrozenPair<float>::random(25, 100, 60, rng);
  CHECK(pair->a.rows() == 25);
  CHECK(pair->a.cols() == 100);
  CHECK(pair->b.rows() == 25);
  CHECK(pair->b.cols() == 60);
  CHECK(largest(pair->a) <= 0.1);
  CHECK(largest(pair->a) > 0.099);
  CHECK(largest(pair->b) <= 0.2);
  CHECK(largest(pair->b) > 0.198);
  CHECK(test::code_of([&] { FrozenPair<float>::random(0, 1, 1, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { FrozenPair<float>::random(1, 0, 1, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { FrozenPair<float>::random(1, 1, 0, rng); }) == ErrorCode::option);
}

TEST_CASE("A fingerprint tells pairs of other numbers, sizes or places apart", "[factors]") {
  Rng one(1), two(1), three(2);
  const auto pair = FrozenPair<float>::random(4, 6, 6, one);
  CHECK(pair->fingerprint() == FrozenPair<float>::random(4, 6, 6, two)->fingerprint());
  CHECK(pair->fingerprint() != FrozenPair<float>::random(4, 6, 6, three)->fingerprint());
  FrozenPair<float> changed = *pair;
  std::swap(changed.a(0, 0), changed.a(0, 1));
  CHECK(changed.fingerprint() != pair->fingerprint());
  CHECK(FrozenPair<float>{pair->b, pair->a}.fingerprint() != pair->fingerprint());
  CHECK(FrozenPair<float>{Matrix<float>(2, 3), {}}.fingerprint() !=
        FrozenPair<float>{Matrix<float>(3, 2), {}}.fingerprint());
}
