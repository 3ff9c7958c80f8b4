// SPDX-License-Identifier: MIT
#include "mole/base/packed_base.hpp"

#include "core/error_code.hpp"
#include "mole/execution/simd.hpp"
#include "mole/execution/through_eigen.hpp"
#include "mole/testing/base_laws.hpp"
#include "support/catch.hpp"
#include "support/either.hpp"
#include "support/layers.hpp"

#include <Eigen/Core>

#include <array>

using namespace mole;

TEMPLATE_TEST_CASE("PackedBase keeps the laws of bases, with and without a second set of panels", "[base]", float,
                   double) {
  const auto weight = support::random_matrix<TestType>(70, 35, 1), bias = support::random_matrix<TestType>(1, 70, 2);
  for (bool backward : {true, false}) {
    const PackedBase<TestType> base(weight, bias.elements(), {.backward = backward});
    CHECK(laws::broken_base_law(base) == "");
    CHECK(laws::broken_affine_base_law(base) == "");
    CHECK(laws::broken_base_law(PackedBase<TestType>(weight, {.backward = backward})) == "");
  }
}

TEST_CASE("PackedBase is deduced from a view, a matrix and Eigen's matrix", "[base]") {
  const auto weight = support::random_matrix<float>(3, 2, 1);
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> eigen(3, 2);
  for (Index r = 0; r < 3; ++r)
    for (Index c = 0; c < 2; ++c) eigen(r, c) = weight(r, c);
  const PackedBase from_view(weight.view()), from_matrix(weight), from_eigen(eigen);
  STATIC_REQUIRE(std::is_same_v<decltype(from_eigen), const PackedBase<float>>);
  const auto x = support::random_matrix<float>(4, 2, 2);
  CHECK(support::same_bits(laws::output_of(from_view, x), laws::output_of(from_matrix, x)));
  CHECK(support::same_bits(laws::output_of(from_view, x), laws::output_of(from_eigen, x)));
}

TEST_CASE("PackedBase needs its host's weight no longer, and its copies share the panels", "[base]") {
  auto weight = support::random_matrix<float>(40, 20, 1);
  const PackedBase base(weight);
  const auto copy = base;
  CHECK(copy.weights().panels.panel(0) == base.weights().panels.panel(0));
  CHECK(copy.weights().transposed_panels.panel(0) == base.weights().transposed_panels.panel(0));
  const float before = base.weights().panels(39, 19);
  weight.set_zero();
  CHECK(base.weights().panels(39, 19) == before);
}

TEST_CASE("PackedBase says its size before it is made, and takes no more", "[base]") {
  const auto weight = support::random_matrix<float>(40, 10, 1);
  for (bool backward : {true, false}) {
    const std::size_t bytes = PackedBase<float>::bytes_for(10, 40, backward);
    CHECK(bytes == std::size_t(64 * 10 + (backward ? 32 * 40 : 0)) * sizeof(float));
    alignas(64) std::array<std::byte, 16384> memory;
    REQUIRE(bytes <= memory.size());
    std::pmr::monotonic_buffer_resource arena(memory.data(), bytes, std::pmr::null_memory_resource());
    const PackedBase<float> base(weight, {.backward = backward, .memory = &arena});
    CHECK(base.weights().panels(39, 9) == weight(39, 9));
    CHECK_THROWS_AS(arena.allocate(64, 64), std::bad_alloc);  // full
  }
}

TEST_CASE("PackedBase refuses a bias of another size", "[base]") {
  const std::vector<float> bias(2);
  CHECK(mole::test::code_of([&] { PackedBase<float>(Matrix<float>(3, 2), bias); }) == ErrorCode::shape);
}

TEMPLATE_TEST_CASE("A layer on a PackedBase equals the same on a DenseBase under Reference, forward and backward",
                   "[base]", float, double) {
  using T = TestType;
  const auto results_of = [](auto base, auto execution, Index tokens, double dropout) {
    Rng rng(5);
    auto layer = support::with_random_b(MixtureLinear(
        LinearRouter<T>({.in = base.in(), .experts = 6}, rng), support::top_2(),
        LowRank<DenseFactors<T>>(
            {.in = base.in(), .out = base.out(), .experts = 6, .rank = 5, .dropout = {.rate = dropout}}, rng),
        base, execution));
    const auto x = support::random_matrix<T>(tokens, base.in(), 8),
               d_y = support::random_matrix<T>(tokens, base.out(), 9);
    Matrix<T> y(tokens, base.out()), d_x = support::random_matrix<T>(tokens, base.in(), 10);
    auto work = layer.workspace(tokens);
    auto gradients = layer.gradients();
    layer.forward(x, y, work, {.training = true});
    layer.backward(x, d_y, d_x, gradients, work);
    return std::vector<Matrix<T>>{y, d_x, gradients.experts.lora_A, gradients.experts.lora_B, gradients.router.weight};
  };
  using Either = support::Either<Reference, ThroughEigen>;
  const auto weight = support::random_matrix<T>(75, 50, 1);
  for (Index tokens : {1, 2, 7, 16, 70, 150})
    for (double dropout : {0.0, 0.3}) {
      CAPTURE(tokens, dropout);
      const auto expected = results_of(DenseBase(weight.view()), Either(Reference{}), tokens, dropout);
      const auto compare = [&](const auto& found) {
        for (std::size_t i = 0; i < expected.size(); ++i) {
          double most = 1;
          for (T value : expected[i].elements()) most = std::max(most, std::abs(double(value)));
          CHECK(support::largest_difference(expected[i], found[i]) <
                100 * double(std::numeric_limits<T>::epsilon()) * most);
        }
      };
      compare(results_of(PackedBase<T>(weight), Either(Reference{}), tokens, dropout));
      compare(results_of(PackedBase<T>(weight), Simd<>{}, tokens, dropout));
      compare(results_of(PackedBase<T>(weight, {.backward = false}), Simd<>{}, tokens, dropout));
      compare(results_of(PackedBase<T>(weight), Simd<kernel::Scalar>{}, tokens, dropout));
      compare(results_of(PackedBase<T>(weight), Either(ThroughEigen{}), tokens, dropout));
    }
}
