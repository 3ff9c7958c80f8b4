// SPDX-License-Identifier: MIT
#include "mole/execution/through_eigen.hpp"

#include "mole/testing/execution_laws.hpp"
#include "support/catch.hpp"
#include "support/execution_checks.hpp"

using namespace mole;
using namespace mole::test;

TEMPLATE_TEST_CASE("Eigen's dense products equal Reference's", "[execution]", float, double) {
  all_dense_products_equal_reference<TestType>(ThroughEigen{});
}

TEMPLATE_TEST_CASE("Eigen's routed primitives equal Reference's", "[execution]", float, double) {
  all_routed_primitives_equal_reference<TestType>(ThroughEigen{});
  large_primitives_equal_reference<TestType>(ThroughEigen{});
}

TEST_CASE("Eigen's execution runs every task, on the caller's thread", "[execution]") {
  std::vector<Index> seen;
  ThroughEigen{}.parallel_for(3, [&](Index i) { seen.push_back(i); });
  CHECK(seen == std::vector<Index>{0, 1, 2});
  CHECK(ThroughEigen{}.threads() == 1);
}

TEMPLATE_TEST_CASE("Eigen's execution keeps the laws of executions", "[execution]", float, double) {
  CHECK(laws::broken_execution_law<TestType>(ThroughEigen{}) == "");
}
