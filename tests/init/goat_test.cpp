// SPDX-License-Identifier: MIT
#include "mole/init/goat.hpp"

#include "init/init_checks.hpp"

#include <algorithm>

using namespace mole;
using namespace init_checks;

TEST_CASE("goat's experts start from the directions that they say, none from another's", "[init]") {
  const auto all = svd(weight);
  using D = GoatDirections;
  const std::vector<std::pair<D, std::vector<Index>>> cases{{D::segments, {0, 1, 4, 5}},
                                                            {D::segment_ends, {2, 3, 6, 7}},
                                                            {D::leading, {0, 1, 2, 3}},
                                                            {D::trailing, {5, 6, 7, 8}},
                                                            {D::both_ends, {0, 1, 7, 8}}};
  for (const auto& [directions, expected] : cases) {
    auto experts = experts_of(2, 6, 2);
    Matrix<double> residual(out, in);
    goat_init(experts, weight, residual.view(), {.directions = directions, .rho = 4});
    CHECK(support::largest_difference(weight_of(experts, residual), weight) < 1e-13);
    for (std::size_t j = 0; j < 4; ++j) {
      double a = 0, b = 0;
      for (Index i = 0; i < in; ++i) a += experts.parameters().lora_A(Index(j), i) * all.v(i, expected[j]);
      for (Index o = 0; o < out; ++o) b += experts.parameters().lora_B(Index(j), o) * all.u(o, expected[j]);
      CHECK(a * b == Approx(all.s[std::size_t(expected[j])] / (3 * 4)).epsilon(1e-11));
    }
  }
}

TEST_CASE("goat takes the share of its updates that it is asked for", "[init]") {
  auto experts = experts_of(2, 6, 2);
  Matrix<double> half(out, in), none = weight;
  goat_init(experts, weight, half.view(), {.share = 0.5});
  for (Index e = 0; e < 2; ++e) experts.add_delta(e, 0.5, half.view());
  CHECK(support::largest_difference(half, weight) < 1e-13);
  goat_init(experts, weight, none.view(), {.share = 0});
  CHECK(support::same_bits(none, weight));
}

TEST_CASE("goat refuses what does not fit", "[init]") {
  check_refusals([](auto& experts, const Matrix<double>& from) { goat_init(experts, from, {}); });
  const auto refused = [](auto experts, GoatInitOptions options) {
    return test::code_of([&] { goat_init(experts, weight, {}, options); }) == ErrorCode::option;
  };
  CHECK(refused(experts_of(5, 6, 2), {}));  // 10 directions of 9
  CHECK(refused(experts_of(5, 6, 2), {.directions = GoatDirections::leading}));
  CHECK(refused(experts_of(2, 6, 2), {.rho = 0}));
  const double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(refused(experts_of(2, 6, 2), {.rho = infinity}));
  CHECK(refused(experts_of(2, 6, 2), {.share = nan}));
  CHECK(refused(experts_of(2, 6, 2), {.share = infinity}));
  auto uneven = experts_of(2, 6, 2);
  uneven.scale()[1] = 2;
  CHECK(refused(uneven, {}));
}
