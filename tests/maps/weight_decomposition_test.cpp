// SPDX-License-Identifier: MIT
#include "mole/maps/weight_decomposition.hpp"

#include "core/error_code.hpp"
#include "mole/execution/thread_pool.hpp"
#include "mole/layer/check_gradients.hpp"
#include "mole/mole.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;

namespace {

constexpr Index dora_in = 300, dora_out = 7;  // inputs of more than one tile

template <class T>
const Matrix<T>& dora_weight() {
  static const Matrix<T> weight = support::random_matrix<T>(dora_out, dora_in, 6);
  return weight;
}

template <class T>
MapExperts<WeightDecomposition<T>> decomposed(Index experts, bool exact_norm = false, bool fresh = false) {
  Rng rng(1);
  MapExperts<WeightDecomposition<T>> made({.in = dora_in,
                                           .out = dora_out,
                                           .experts = experts,
                                           .rank = 2,
                                           .weight = dora_weight<T>(),
                                           .exact_norm = exact_norm,
                                           .alpha = 3},
                                          rng);
  if (fresh) return made;
  fill_uniform(made.parameters().lora_B.view(), 1, rng);
  for (T& m : made.parameters().magnitude.elements()) m += T(0.5 * standard_normal(rng));
  return made;
}

template <class T, class Execution = Simd<>>
auto decomposed_layer(const MapExperts<WeightDecomposition<T>>& experts, Execution execution = {}) {
  Rng rng(5);
  return MixtureLinear(LinearRouter<T>({.in = dora_in, .experts = experts.experts()}, rng),
                       Gate{Softmax{}, TopK{std::min<Index>(2, experts.experts())}, Renormalized{}}, experts,
                       DenseBase(dora_weight<T>()), execution);
}

/// diag(m / n) (W + s B A) - W, in plain loops.
Matrix<double> decomposed_delta(const MapExperts<WeightDecomposition<double>>& experts, Index e) {
  const auto& [a, b, m] = experts.parameters();
  Matrix<double> delta(dora_out, dora_in);
  for (Index o = 0; o < dora_out; ++o) {
    double squares = 0;
    for (Index i = 0; i < dora_in; ++i) {
      double v = dora_weight<double>()(o, i);
      for (Index k = 2 * e; k < 2 * e + 2; ++k) v += 1.5 * b(k, o) * a(k, i);
      delta(o, i) = v;
      squares += v * v;
    }
    for (double& v : delta.view().row(o)) v *= m(e, o) / std::sqrt(squares);
    for (Index i = 0; i < dora_in; ++i) delta(o, i) -= dora_weight<double>()(o, i);
  }
  return delta;
}

}  // namespace

TEST_CASE("WeightDecomposition gives the rows of a weight and its LoRA new lengths", "[maps]") {
  const auto experts = decomposed<double>(3);
  for (Index e = 0; e < 3; ++e) {
    Matrix<double> delta(dora_out, dora_in), expected = decomposed_delta(experts, e);
    experts.add_delta(e, 0.5, delta.view());
    for (double& element : expected.elements()) element *= 0.5;
    CHECK(support::largest_difference(delta, expected) < 1e-13);
    for (Index o = 0; o < dora_out; ++o) {  // the merged row has the length of the magnitude
      double squares = 0;
      for (Index i = 0; i < dora_in; ++i) {
        const double merged = dora_weight<double>()(o, i) + 2 * delta(o, i);
        squares += merged * merged;
      }
      CHECK(std::sqrt(squares) == Approx(std::abs(experts.parameters().magnitude(e, o))).epsilon(1e-12));
    }
  }
}

TEST_CASE("WeightDecomposition is right under every execution; with exact norms its gradients are exact", "[maps]") {
  const auto x = support::random_matrix<double>(6, dora_in, 3);
  for (Index count : {1, 3}) {
    const auto experts = decomposed<double>(count, true);
    auto layer = decomposed_layer(experts, Reference{});
    auto work = layer.workspace(6);
    Matrix<double> y(6, dora_out);
    layer.forward(x, y, work);
    for (Index n = 0; n < 6; ++n) {
      Matrix<double> merged = dora_weight<double>();
      const auto chosen = work.routing.experts_of(n);
      for (std::size_t j = 0; j < chosen.size(); ++j)
        experts.add_delta(chosen[j], std::as_const(work.routing).gates_of(n)[j], merged.view());
      for (Index o = 0; o < dora_out; ++o) {
        double expected = 0;
        for (Index i = 0; i < dora_in; ++i) expected += merged(o, i) * x(n, i);
        CHECK(std::abs(y(n, o) - expected) < 1e-11);
      }
    }
    CHECK(support::largest_difference(support::output(decomposed_layer(experts), x), y) < 1e-11);
    auto by_simd = decomposed_layer(experts);
    if (count == 1)  // many numbers: one check each
      CHECK(check_gradients(layer, {.pass = {.training = true}}).worst < 1e-7);
    else
      CHECK(check_gradients(by_simd).worst < 1e-7);
  }
}

TEST_CASE("Without exact norms the gradients are those of a layer whose lengths stand still", "[maps]") {
  // The same layer with its lengths frozen is linear in s B A: V x / n, with the ratio m / n as a constant.
  const auto experts = decomposed<double>(1), exact = decomposed<double>(1, true);
  const auto x = support::random_matrix<double>(6, dora_in, 3), d_y = support::random_matrix<double>(6, dora_out, 4);
  const auto gradients_of = [&](const auto& of) {
    auto layer = one_adapter(of, DenseBase(dora_weight<double>()), Simd<>{});
    auto work = layer.workspace(6);
    auto gradients = layer.gradients();
    Matrix<double> y(6, dora_out), d_x(6, dora_in);
    layer.forward(x, y, work);
    layer.backward(x, d_y, d_x, gradients, work);
    return std::pair{gradients.experts, d_x};
  };
  const auto [frozen, frozen_d_x] = gradients_of(experts);
  const auto [moving, moving_d_x] = gradients_of(exact);
  CHECK(support::same_bits(frozen_d_x, moving_d_x));
  CHECK(support::same_bits(frozen.magnitude, moving.magnitude));
  CHECK(support::largest_difference(frozen.lora_A, moving.lora_A) > 1e-3);
  const auto& [a, b, m] = experts.parameters();
  const Matrix<double> delta = decomposed_delta(experts, 0);
  for (Index k = 0; k < 2; ++k)
    for (Index o = 0; o < dora_out; ++o) {
      double squares = 0, expected = 0;
      for (Index i = 0; i < dora_in; ++i) squares += std::pow(delta(o, i) + dora_weight<double>()(o, i), 2);
      // |merged row| = |m|, so that m / n follows from any of its elements
      const double v0 = dora_weight<double>()(o, 0) + 1.5 * (b(0, o) * a(0, 0) + b(1, o) * a(1, 0));
      const double ratio = (delta(o, 0) + dora_weight<double>()(o, 0)) / v0;
      for (Index n = 0; n < 6; ++n) {
        double h = 0;
        for (Index i = 0; i < dora_in; ++i) h += a(k, i) * x(n, i);
        expected += 1.5 * ratio * d_y(n, o) * h;
      }
      CHECK(frozen.lora_B(k, o) == Approx(expected).epsilon(1e-10));
      CHECK(std::sqrt(squares) == Approx(std::abs(m(0, o))).epsilon(1e-12));
    }
}

TEST_CASE("A fresh WeightDecomposition leaves the base as it is, to the bit, rows of zeros too", "[maps]") {
  Matrix<float> weight = dora_weight<float>();
  for (float& element : weight.view().row(2)) element = 0;
  Rng rng(1);
  const auto x = support::random_matrix<float>(5, dora_in, 3);
  const MapExperts<WeightDecomposition<float>> experts(
      {.in = dora_in, .out = dora_out, .rank = 2, .weight = weight, .alpha = 3}, rng);
  auto layer = one_adapter(experts, DenseBase(weight), Simd<>{});
  Matrix<float> expected(5, dora_out);
  Simd<>{}.product_nt(x, weight, expected.view());
  CHECK(support::same_bits(support::output(layer, x), expected));
  auto work = layer.workspace(5);
  auto gradients = layer.gradients();
  Matrix<float> y(5, dora_out), d_x(5, dora_in);
  layer.forward(x, y, work);
  layer.backward(x, expected, d_x, gradients, work);
  for (float d : gradients.experts.lora_B.elements()) CHECK(std::isfinite(d));
}

TEST_CASE("WeightDecomposition has the same bits on any number of threads", "[maps]") {
  const auto experts = decomposed<float>(3, true);
  const auto x = support::random_matrix<float>(9, dora_in, 3), d_y = support::random_matrix<float>(9, dora_out, 4);
  const auto results = [&](auto execution) {
    auto layer = decomposed_layer(experts, execution);
    auto work = layer.workspace(9);
    auto gradients = layer.gradients();
    Matrix<float> y(9, dora_out), d_x(9, dora_in);
    layer.forward(x, y, work);
    layer.backward(x, d_y, d_x, gradients, work);
    return std::vector<Matrix<float>>{y, d_x, gradients.experts.lora_A, gradients.experts.lora_B,
                                      gradients.experts.magnitude};
  };
  const auto one = results(Simd<>{}), three = results(Simd(ThreadPool(3)));
  for (std::size_t i = 0; i < one.size(); ++i) CHECK(support::same_bits(one[i], three[i]));
}

TEST_CASE("WeightDecomposition refuses what does not fit", "[maps]") {
  Rng rng;
  using Maps = WeightDecomposition<double>;
  const Matrix<double> weight(3, 4);
  CHECK(test::code_of([&] { Maps({.in = 0, .out = 3, .weight = weight}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Maps({.in = 4, .out = 3, .rank = 0, .weight = weight}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Maps({.in = 4, .out = 3}, rng); }) == ErrorCode::shape);
  CHECK(test::code_of([&] { Maps({.in = 3, .out = 4, .weight = weight}, rng); }) == ErrorCode::shape);
  Maps maps({.in = 4, .out = 3, .weight = weight}, rng);
  maps.parameters().magnitude = Matrix<double>(1, 4);
  CHECK(test::code_of([&] { maps.check_sizes(); }) == ErrorCode::shape);
}

TEST_CASE("WeightDecomposition has the numbers that it says", "[maps]") {
  Rng rng;
  const Matrix<float> weight(4096, 4096);
  const WeightDecomposition<float> maps({.in = 4096, .out = 4096, .rank = 8, .weight = weight}, rng);
  const auto& [a, b, m] = maps.parameters();
  CHECK(a.size() + b.size() + m.size() == 69'632);
}

TEST_CASE("Several WeightDecompositions are not added to the weight that each of them measures; a single one is",
          "[maps]") {
  Matrix<double> host = dora_weight<double>();
  const auto over_host = [&](Index experts) {
    Rng rng(1);
    MapExperts<WeightDecomposition<double>> made(
        {.in = dora_in, .out = dora_out, .experts = experts, .rank = 2, .weight = host, .alpha = 3}, rng);
    fill_uniform(made.parameters().lora_B.view(), 1, rng);
    return made;
  };
  const auto two = over_host(2), one = over_host(1);
  CHECK(test::code_of([&] { two.add_delta(0, 0.5, host.view()); }) == ErrorCode::not_mergeable);
  CHECK(support::same_bits(host, dora_weight<double>()));
  Matrix<double> elsewhere = host;
  one.add_delta(0, 1, elsewhere.view());
  one.add_delta(0, 1, host.view());
  CHECK(support::same_bits(host, elsewhere));
  Matrix<double> memory(dora_out + 1, dora_in);
  Rng rng(1);
  const MapExperts<WeightDecomposition<double>> shifted(
      {.in = dora_in, .out = dora_out, .rank = 2, .weight = memory.view().top(dora_out), .alpha = 3}, rng);
  CHECK(test::code_of([&] { shifted.add_delta(0, 1, memory.view().middle_rows(1, dora_out)); }) ==
        ErrorCode::not_mergeable);
}
