// SPDX-License-Identifier: MIT
#include "mole/maps/dense_maps.hpp"

#include "core/error_code.hpp"
#include "mole/execution/thread_pool.hpp"
#include "mole/execution/through_eigen.hpp"
#include "mole/layer/check_gradients.hpp"
#include "mole/mole.hpp"
#include "mole/testing/expert_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;

namespace {

template <class T>
auto dense_maps(Index experts, Index in = 5, Index out = 7) {
  Rng rng(1);
  return MapExperts<DenseMaps<T>>({.in = in, .out = out, .experts = experts, .alpha = 2}, rng);
}

template <class T, class Execution = Simd<>>
auto dense_layer(const MapExperts<DenseMaps<T>>& experts, Execution execution = {}) {
  Rng rng(5);
  const Index count = experts.experts();
  return MixtureLinear(LinearRouter<T>({.in = experts.in(), .experts = count}, rng),
                       Gate{Softmax{}, TopK{std::min<Index>(2, count)}, Renormalized{}}, experts,
                       DenseBase(support::random_matrix<T>(experts.out(), experts.in(), 6)), execution);
}

}  // namespace

TEST_CASE("DenseMaps are matrices, under every execution", "[maps]") {
  for (Index rows : {0, 1, 9}) {
    const auto experts = dense_maps<double>(3);
    const auto x = support::random_matrix<double>(rows, 5, 3);
    const auto check = [&](auto execution) {
      const auto layer = dense_layer(experts, execution);
      Matrix<double> y(rows, 7);
      auto work = layer.workspace(rows);
      layer.forward(x, y, work);
      for (Index n = 0; n < rows; ++n) {
        Matrix<double> merged(7, 5);
        for (Index p = work.routing.first_pair(n); p < work.routing.first_pair(n + 1); ++p)
          experts.add_delta(work.routing.expert(p), work.routing.gate(p), merged.view());
        for (Index o = 0; o < 7; ++o) {
          double expected = 0, by_delta = 0;
          for (Index i = 0; i < 5; ++i) {
            double weight = 0;
            for (Index p = work.routing.first_pair(n); p < work.routing.first_pair(n + 1); ++p)
              weight += 2 * work.routing.gate(p) * experts.parameters().weight(work.routing.expert(p) * 7 + o, i);
            expected += (layer.base().weight()(o, i) + weight) * x(n, i);
            by_delta += (layer.base().weight()(o, i) + merged(o, i)) * x(n, i);
          }
          CHECK(std::abs(y(n, o) - expected) < 1e-13);
          CHECK(std::abs(y(n, o) - by_delta) < 1e-13);
        }
      }
    };
    check(Reference{}), check(Simd<>{}), check(ThroughEigen{});
  }
}

TEST_CASE("DenseMaps keep the laws of experts, have exact gradients, and the same bits on threads", "[maps]") {
  for (Index experts : {1, 4}) {
    CHECK(laws::broken_expert_law(dense_maps<float>(experts)) == "");
    auto layer = dense_layer(dense_maps<double>(experts), Reference{});
    CHECK(check_gradients(layer).passed(1e-8));
  }
  const auto x = support::random_matrix<float>(9, 5, 3), d_y = support::random_matrix<float>(9, 7, 4);
  const auto results = [&](auto execution) {
    const auto layer = dense_layer(dense_maps<float>(3), execution);
    auto work = layer.workspace(9);
    auto gradients = layer.gradients();
    Matrix<float> y(9, 7), d_x(9, 5);
    layer.forward(x, y, work);
    layer.backward(x, d_y, d_x, gradients, work);
    return std::vector<Matrix<float>>{y, d_x, gradients.experts.weight, gradients.router.weight};
  };
  const auto one = results(Simd<>{}), three = results(Simd(ThreadPool(3)));
  for (std::size_t i = 0; i < one.size(); ++i) CHECK(support::same_bits(one[i], three[i]));
}

TEST_CASE("DenseMaps may have biases, with exact gradients, which cannot be merged", "[maps]") {
  Rng rng(1);
  const MapExperts<DenseMaps<double>> experts({.in = 5, .out = 7, .experts = 3, .bias = true}, rng),
      unbiased(DenseMaps<double>({.in = 5, .out = 7, .experts = 3}, rng), {1, 1, 1});
  CHECK(laws::broken_expert_law(experts) == "");
  auto layer = dense_layer(experts, Reference{}), plain = dense_layer(unbiased, Reference{});
  plain.experts().parameters().weight = experts.parameters().weight;
  CHECK(check_gradients(layer).passed(1e-8));
  const auto x = support::random_matrix<double>(9, 5, 3);
  Matrix<double> y(9, 7), expected(9, 7), w(7, 5);
  auto work = layer.workspace(9), plain_work = plain.workspace(9);
  layer.forward(x, y, work), plain.forward(x, expected, plain_work);
  for (Index p = 0; p < work.routing.pairs(); ++p)
    for (Index o = 0; o < 7; ++o)
      expected(work.routing.token(p), o) += work.routing.gate(p) * experts.parameters().bias(work.routing.expert(p), o);
  CHECK(support::largest_difference(y, expected) < 1e-14);
  CHECK(test::code_of([&] { experts.add_delta(0, 1, w.view()); }) == ErrorCode::option);
  for (double number : w.elements()) CHECK(number == 0);
  layer.experts().parameters().bias = Matrix<double>(3, 6);
  CHECK(test::code_of([&] { layer.forward(x, y, work); }) == ErrorCode::shape);
}

TEST_CASE("DenseMaps start within the bound of their inputs, or at 0", "[maps]") {
  Rng rng(1);
  const DenseMaps<double> maps({.in = 100, .out = 30}, rng), zero({.in = 100, .out = 30, .zero = true}, rng);
  double most = 0;
  for (double number : maps.parameters().weight.elements()) most = std::max(most, std::abs(number));
  CHECK((most > 0.099 && most <= 0.1));
  for (double number : zero.parameters().weight.elements()) CHECK(number == 0);
}

TEST_CASE("DenseMaps refuse sizes below 1, and a weight of others; they have the numbers that they say", "[maps]") {
  Rng rng;
  using Maps = DenseMaps<float>;
  CHECK(test::code_of([&] { Maps({.in = 0, .out = 2}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Maps({.in = 2, .out = 0}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Maps({.in = 2, .out = 2, .experts = 0}, rng); }) == ErrorCode::option);
  Maps maps({.in = 2, .out = 3, .experts = 2}, rng);
  maps.parameters().weight = Matrix<float>(3, 2);
  CHECK(test::code_of([&] { maps.check_sizes(); }) == ErrorCode::shape);
  CHECK(Maps({.in = 4096, .out = 4096, .zero = true}, rng).parameters().weight.size() == 16'777'216);
}
