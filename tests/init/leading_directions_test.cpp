// SPDX-License-Identifier: MIT
#include "mole/init/leading_directions.hpp"

#include "init/init_checks.hpp"
#include "mole/core/svd.hpp"

using namespace mole;
using namespace init_checks;

TEST_CASE("Leading directions are the first of all, as many as there are", "[init]") {
  const auto all = svd(weight);
  for (Index count : {0, 1, 4, 9, 20}) {
    const auto found = leading_directions(weight.view(), {.count = count});
    const Index kept = std::min<Index>(count, in);
    REQUIRE(Index(found.s.size()) == kept);
    REQUIRE(found.u.cols() == kept);
    REQUIRE(found.v.cols() == kept);
    for (Index j = 0; j < kept; ++j) {
      CHECK(found.s[std::size_t(j)] == all.s[std::size_t(j)]);
      for (Index o = 0; o < out; ++o) CHECK(found.u(o, j) == all.u(o, j));
      for (Index i = 0; i < in; ++i) CHECK(found.v(i, j) == all.v(i, j));
    }
  }
}

TEST_CASE("A random projection that searches all directions finds them exactly, of floats and of rows with gaps",
          "[init]") {
  const auto wide = support::random_matrix<float>(out, in + 5, 3);
  const View<const float> gapped = wide.view().middle_cols(0, in);
  const auto exact = leading_directions(gapped, {.count = 3});
  for (Index iterations : {0, 2}) {
    const auto found = leading_directions(gapped, {.count = 3, .power_iterations = iterations});
    REQUIRE(found.s.size() == 3);
    for (std::size_t j = 0; j < 3; ++j) CHECK(found.s[j] == Approx(exact.s[j]).epsilon(1e-12));
  }
  const auto again = leading_directions(gapped, {.count = 3, .power_iterations = 2});
  CHECK(support::same_bits(again.u, leading_directions(gapped, {.count = 3, .power_iterations = 2}).u));
}
