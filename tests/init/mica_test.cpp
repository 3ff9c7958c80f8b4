// SPDX-License-Identifier: MIT
#include "mole/init/mica.hpp"

#include "init/init_checks.hpp"

using namespace mole;
using namespace init_checks;

TEST_CASE("mica's B has the weakest directions, weakest last, and A is 0", "[init]") {
  auto experts = experts_of(2);
  mica_init(experts, weight);
  const auto sigma = svd(weight).s;
  for (Index j = 0; j < 2; ++j) {
    double squares = 0;  // |u^T W| is the singular value of u
    for (Index i = 0; i < in; ++i) {
      double product = 0;
      for (Index o = 0; o < out; ++o) product += experts.parameters().lora_B(j, o) * weight(o, i);
      squares += product * product;
    }
    CHECK(std::sqrt(squares) == Approx(sigma[std::size_t(7 + j)]).epsilon(1e-10));
  }
  CHECK(support::same_bits(experts.parameters().lora_A, Matrix<double>(2, in)));
}

TEST_CASE("mica refuses what does not fit", "[init]") {
  check_refusals([](auto& experts, const Matrix<double>& from) { mica_init(experts, from); });
}
