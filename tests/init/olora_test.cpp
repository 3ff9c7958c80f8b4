// SPDX-License-Identifier: MIT
#include "mole/init/olora.hpp"

#include "init/init_checks.hpp"

using namespace mole;
using namespace init_checks;

TEST_CASE("olora's B is orthonormal, and what the residual lacks", "[init]") {
  for (Index ranks : {1, 4, 11}) {
    auto experts = experts_of(ranks, 5);
    Matrix<double> residual(out, in);
    olora_init(experts, weight, residual.view());
    CHECK(support::largest_difference(weight_of(experts, residual), weight) < 1e-13);
    const auto& b = experts.parameters().lora_B;
    for (Index j = 0; j < ranks; ++j)
      for (Index k = 0; k < ranks; ++k) {
        double product = 0;
        for (Index o = 0; o < out; ++o) product += b(j, o) * b(k, o);
        CHECK(std::abs(product - (j == k && j < in ? 1 : 0)) < 1e-13);
      }
  }
}

TEST_CASE("olora of full rank and scale 1 takes all of the weight", "[init]") {
  auto experts = experts_of(9, 9);
  Matrix<double> residual = weight;
  olora_init(experts, residual.view(), residual.view());
  CHECK(norm(residual) < 1e-12);
}

TEST_CASE("olora refuses what does not fit", "[init]") {
  check_refusals([](auto& experts, const Matrix<double>& from) { olora_init(experts, from, {}); });
}
