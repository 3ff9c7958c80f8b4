// SPDX-License-Identifier: MIT
#include "mole/core/linear_parameters.hpp"

#include "mole/execution/reference.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace mole;
using support::random_matrix;

TEST_CASE("Linear parameters are a map, with its bias where there is one", "[core]") {
  const LinearParameters<double> with{random_matrix<double>(3, 4, 1), random_matrix<double>(1, 3, 2)};
  const LinearParameters<double> without{with.weight, {}};
  const auto in = random_matrix<double>(5, 4, 3);
  Matrix<double> expected(5, 3), found(5, 3);
  Reference{}.product_nt(in, with.weight, expected.view());
  Reference{}.linear(in, without.weights(), found.view());
  CHECK(support::same_bits(found, expected));
  for (Index n = 0; n < 5; ++n)
    for (Index o = 0; o < 3; ++o) expected(n, o) += with.bias(0, o);
  Reference{}.linear(in, with.weights(), found.view());
  CHECK(support::same_bits(found, expected));
}

TEST_CASE("Gradients of a linear map are added to, frozen ones are left alone", "[core]") {
  const auto in = random_matrix<double>(5, 4, 1), d_out = random_matrix<double>(5, 3, 2);
  const LinearParameters<double> start{random_matrix<double>(3, 4, 3), random_matrix<double>(1, 3, 4)};
  auto expected = start;
  for (Index n = 0; n < 5; ++n)
    for (Index o = 0; o < 3; ++o) {
      expected.bias(0, o) += d_out(n, o);
      for (Index i = 0; i < 4; ++i) expected.weight(o, i) += d_out(n, o) * in(n, i);
    }
  auto both = start;
  both.add_gradients(in, d_out, Reference{});
  CHECK(support::largest_difference(both.weight, expected.weight) < 1e-14);
  CHECK(support::largest_difference(both.bias, expected.bias) < 1e-14);

  LinearParameters<double> weight_alone{start.weight, {}}, bias_alone{{}, start.bias}, frozen;
  for (auto* some : {&weight_alone, &bias_alone, &frozen}) some->add_gradients(in, d_out, Reference{});
  CHECK(support::same_bits(weight_alone.weight, both.weight));
  CHECK(weight_alone.bias.empty());
  CHECK(bias_alone.weight.empty());
  CHECK(support::same_bits(bias_alone.bias, both.bias));
  CHECK(frozen.weight.empty());
  CHECK(frozen.bias.empty());
}

TEST_CASE("An absent input stands for zeros: the bias alone has a gradient", "[core]") {
  const auto d_out = random_matrix<double>(5, 3, 2);
  const LinearParameters<double> start{random_matrix<double>(3, 4, 3), random_matrix<double>(1, 3, 4)};
  auto absent = start, zeros = start;
  absent.add_gradients({}, d_out, Reference{});
  zeros.add_gradients(Matrix<double>(5, 4), d_out, Reference{});
  CHECK(support::same_bits(absent.weight, start.weight));
  CHECK(support::same_bits(absent.bias, zeros.bias));
  CHECK_FALSE(support::same_bits(absent.bias, start.bias));
}
