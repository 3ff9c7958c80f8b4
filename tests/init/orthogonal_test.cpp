// SPDX-License-Identifier: MIT
#include "mole/init/orthogonal.hpp"

#include "init/init_checks.hpp"

using namespace mole;
using namespace init_checks;

TEST_CASE("orthogonal's A and B are not 0, and their product is", "[init]") {
  Rng rng(5);
  auto experts = experts_of(6, 6, 2);
  orthogonal_init(experts, rng);
  for (Index e = 0; e < 2; ++e) {
    Matrix<double> delta(out, in);
    experts.add_delta(e, 1, delta.view());
    CHECK(norm(delta) < 1e-15);
  }
  CHECK(norm(experts.parameters().lora_A) > 0.3);
  CHECK(norm(experts.parameters().lora_B) > 0.3);
  auto odd = experts_of(3);
  CHECK(test::code_of([&] { orthogonal_init(odd, rng); }) == ErrorCode::option);
}
