// SPDX-License-Identifier: MIT
#include "mole/maps/diagonal_mixture.hpp"

#include "core/error_code.hpp"
#include "mole/execution/thread_pool.hpp"
#include "mole/layer/check_gradients.hpp"
#include "mole/mole.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <Eigen/Dense>

using namespace mole;

namespace {

struct Shape {
  Index in, out, rank;
  BasisPairing pairing = BasisPairing::formula;
  Index used = 0;
};

/// More inputs, more outputs, as many; ranks that divide the small side and ranks that do not; one basis.
const std::vector<Shape> shapes{{6, 9, 2},
                                {9, 6, 4},
                                {7, 7, 3, BasisPairing::flattened},
                                {8, 5, 2, BasisPairing::flattened},
                                {5, 8, 2, BasisPairing::flattened},
                                {8, 10, 3, BasisPairing::formula, 1},
                                {1, 3, 2},
                                {3, 1, 1}};

template <class T>
std::shared_ptr<const DiagonalBases<T>> bases_of(Index rank, bool keep = true,
                                                 BasisDistribution distribution = BasisDistribution::uniform) {
  return std::make_shared<const DiagonalBases<T>>(typename DiagonalBases<T>::Options{
      .rank = rank, .small_side = 12, .large_side = 15, .distribution = distribution, .keep = keep, .seed = 3});
}

template <class T>
MapExperts<DiagonalMixture<T>> mixture(const Shape& shape, std::shared_ptr<const DiagonalBases<T>> bases,
                                       Index experts = 3) {
  Rng rng(1);
  MapExperts<DiagonalMixture<T>> made({.in = shape.in,
                                       .out = shape.out,
                                       .experts = experts,
                                       .bases = std::move(bases),
                                       .used = shape.used,
                                       .pairing = shape.pairing,
                                       .alpha = 6},
                                      rng);
  fill_uniform(made.parameters().randlora_lambda.view(), 1, rng);
  fill_uniform(made.parameters().randlora_gamma.view(), 1, rng);
  return made;
}

template <class T, class Execution = Simd<>>
auto mixture_layer(const MapExperts<DiagonalMixture<T>>& experts, Execution execution = {}) {
  Rng rng(5);
  return MixtureLinear(LinearRouter<T>({.in = experts.in(), .experts = experts.experts()}, rng),
                       Gate{Softmax{}, TopK{std::min<Index>(2, experts.experts())}, Renormalized{}}, experts,
                       DenseBase(support::random_matrix<T>(experts.out(), experts.in(), 6)), execution);
}

/// The sum of the formula, in plain loops.
Matrix<double> delta_by_formula(const MapExperts<DiagonalMixture<double>>& experts, Index e, const Shape& shape) {
  const auto& bases = *experts.maps().bases();
  const Index n = experts.maps().used_bases(), small = std::min(shape.in, shape.out),
              large = std::max(shape.in, shape.out);
  Matrix<double> scratch(shape.rank, std::max(small, large)), delta(shape.out, shape.in);
  const View<const double> a = bases.a(small, scratch.view(), Reference{});
  for (Index q = 0; q < n * shape.rank; ++q) {
    const bool formula = shape.pairing == BasisPairing::formula;
    const Index k = formula ? q % shape.rank : q / n, b = formula ? q / shape.rank : q % n;
    const View<const double> basis = bases.b(q / shape.rank, large, scratch.view(), Reference{});
    for (Index i = 0; i < small; ++i)
      for (Index j = 0; j < large; ++j) {
        const double product = experts.parameters().randlora_lambda(e * shape.rank + k, b) * a(k, i) *
                               experts.parameters().randlora_gamma(e * n + b, i) * basis(q % shape.rank, j);
        (shape.in <= shape.out ? delta(j, i) : delta(i, j)) += experts.scale()[std::size_t(e)] * product;
      }
  }
  return delta;
}

}  // namespace

TEST_CASE("DiagonalMixture adds a sum of random matrices between diagonals", "[maps]") {
  for (const Shape& shape : shapes) {
    const auto experts = mixture<double>(shape, bases_of<double>(shape.rank));
    const Index n = shape.used > 0 ? shape.used : (std::min(shape.in, shape.out) + shape.rank - 1) / shape.rank;
    REQUIRE(experts.maps().used_bases() == n);
    CHECK(experts.scale()[0] == Approx(6 / (double(shape.rank) * std::sqrt(double(n)))).epsilon(1e-15));
    for (Index e = 0; e < 3; ++e) {
      Matrix<double> delta(shape.out, shape.in);
      experts.add_delta(e, 1, delta.view());
      CHECK(support::largest_difference(delta, delta_by_formula(experts, e, shape)) < 1e-13);
    }
  }
}

TEST_CASE("DiagonalMixture is right under every execution, and its gradients exact", "[maps]") {
  for (const Shape& shape : shapes)
    for (bool keep : {true, false}) {
      CAPTURE(shape.in, shape.out, shape.rank, keep);
      const auto experts = mixture<double>(shape, bases_of<double>(shape.rank, keep));
      const auto x = support::random_matrix<double>(7, shape.in, 3);
      auto layer = mixture_layer(experts, Reference{});
      auto work = layer.workspace(7);
      Matrix<double> y(7, shape.out);
      layer.forward(x, y, work);
      for (Index n = 0; n < 7; ++n) {
        Matrix<double> weight(shape.out, shape.in);
        copy(layer.base().weight(), weight.view());
        const auto chosen = work.routing.experts_of(n);
        for (std::size_t j = 0; j < chosen.size(); ++j)
          experts.add_delta(chosen[j], std::as_const(work.routing).gates_of(n)[j], weight.view());
        for (Index o = 0; o < shape.out; ++o) {
          double expected = 0;
          for (Index i = 0; i < shape.in; ++i) expected += weight(o, i) * x(n, i);
          CHECK(std::abs(y(n, o) - expected) < 1e-12);
        }
      }
      CHECK(support::largest_difference(support::output(mixture_layer(experts), x), y) < 1e-12);
      CHECK(check_gradients(layer, {.pass = {.training = true}}).worst < 1e-7);
    }
}

TEST_CASE("Bases have the same bits in memory and made anew, on any number of threads", "[maps]") {
  for (BasisDistribution distribution :
       {BasisDistribution::uniform, BasisDistribution::ternary, BasisDistribution::sparse_ternary}) {
    const auto results = [&](bool keep, auto execution) {
      const auto experts = mixture<float>({11, 13, 3}, bases_of<float>(3, keep, distribution));
      auto layer = mixture_layer(experts, execution);
      const auto x = support::random_matrix<float>(9, 11, 3), d_y = support::random_matrix<float>(9, 13, 4);
      auto work = layer.workspace(9);
      auto gradients = layer.gradients();
      Matrix<float> y(9, 13), d_x(9, 11);
      layer.forward(x, y, work);
      layer.backward(x, d_y, d_x, gradients, work);
      return std::vector<Matrix<float>>{y, d_x, gradients.experts.randlora_lambda, gradients.experts.randlora_gamma};
    };
    const auto kept = results(true, Simd<>{}), anew = results(false, Simd(ThreadPool(3)));
    for (std::size_t i = 0; i < kept.size(); ++i) CHECK(support::same_bits(kept[i], anew[i]));
  }
}

TEST_CASE("A row's bits under DiagonalMixture do not depend on the others", "[maps]") {
  const auto experts = mixture<float>({11, 13, 4}, bases_of<float>(4));
  const auto layer =
      MixtureLinear(NoRouter<float>(3), Gate{Identity{}, All{}, Unit{}}, experts, NoBase<float>(11, 13), Simd<>{});
  const auto x = support::random_matrix<float>(70, 11, 3);
  const auto all = support::output(layer, x);
  for (Index n : {0, 31, 32, 69}) {
    Matrix<float> one(1, 11);
    copy(x.view().middle_rows(n, 1), one.view());
    CHECK(std::ranges::equal(support::output(layer, one).elements(), all.view().row(n)));
  }
}

TEST_CASE("A fresh DiagonalMixture adds nothing, and learns lambda first", "[maps]") {
  Rng rng;
  const auto bases = bases_of<double>(4);
  auto layer = MixtureLinear(NoRouter<double>(1), Gate{Identity{}, All{}, Unit{}},
                             MapExperts<DiagonalMixture<double>>({.in = 10, .out = 12, .bases = bases}, rng),
                             DenseBase(support::random_matrix<double>(12, 10, 6)), Simd<>{});
  const auto x = support::random_matrix<double>(5, 10, 3), d_y = support::random_matrix<double>(5, 12, 4);
  Matrix<double> expected(5, 12), y(5, 12), d_x(5, 10);
  Simd<>{}.product_nt(x, layer.base().weight(), expected.view());
  auto work = layer.workspace(5);
  layer.forward(x, y, work);
  CHECK(support::same_bits(y, expected));
  auto gradients = layer.gradients();
  layer.backward(x, d_y, d_x, gradients, work);
  CHECK(support::same_bits(gradients.experts.randlora_gamma, Matrix<double>(3, 10)));
  for (double d : gradients.experts.randlora_lambda.elements()) CHECK(d != 0);
  for (double gamma : layer.experts().parameters().randlora_gamma.elements()) CHECK(gamma == 0.1);
}

TEST_CASE("DiagonalMixture has full rank, with one basis that of the basis", "[maps]") {
  const auto rank_of = [](Index used) {
    const auto experts = mixture<double>({8, 10, 3, BasisPairing::formula, used}, bases_of<double>(3), 1);
    Matrix<double> delta(10, 8);
    experts.add_delta(0, 1, delta.view());
    const Eigen::Map<const Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>> matrix(delta.data(),
                                                                                                          10, 8);
    return matrix.colPivHouseholderQr().rank();
  };
  CHECK(rank_of(0) == 8);
  CHECK(rank_of(1) == 3);
  CHECK(rank_of(2) == 6);
}

TEST_CASE("DiagonalMixture refuses what does not fit", "[maps]") {
  Rng rng;
  using Maps = DiagonalMixture<double>;
  const auto bases = bases_of<double>(4);
  CHECK(test::code_of([&] { Maps({.in = 0, .out = 3, .bases = bases}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Maps({.in = 3, .out = 3}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Maps({.in = 13, .out = 13, .bases = bases}, rng); }) == ErrorCode::shape);
  CHECK(test::code_of([&] { Maps({.in = 3, .out = 16, .bases = bases}, rng); }) == ErrorCode::shape);
  CHECK(test::code_of([&] { Maps({.in = 3, .out = 3, .bases = bases, .used = 9}, rng); }) == ErrorCode::shape);
  Maps maps({.in = 12, .out = 9, .bases = bases}, rng);
  maps.parameters().randlora_gamma = Matrix<double>(1, 1);
  CHECK(test::code_of([&] { maps.check_sizes(); }) == ErrorCode::shape);
}

TEST_CASE("A state of DiagonalMixture fits the same bases alone, kept or not", "[maps]") {
  Rng rng;
  std::int64_t saved = 0;
  const auto with = [&](std::shared_ptr<const DiagonalBases<double>> bases, auto&& f) {
    DiagonalMixture<double> maps({.in = 5, .out = 6, .bases = std::move(bases)}, rng);
    maps.for_each_state([&](std::string_view, std::span<std::int64_t> print) { f(print[0]); });
  };
  const auto restore = [&](std::int64_t& print) { print = saved; };
  with(bases_of<double>(4), [&](std::int64_t print) { saved = print; });
  CHECK_NOTHROW(with(bases_of<double>(4, false), restore));
  CHECK(test::code_of([&] { with(bases_of<double>(4, true, BasisDistribution::ternary), restore); }) ==
        ErrorCode::option);
}

TEST_CASE("DiagonalMixture has the numbers that it says", "[maps]") {
  Rng rng;
  const auto bases = std::make_shared<const DiagonalBases<float>>(
      DiagonalBases<float>::Options{.small_side = 4096, .large_side = 4096, .keep = false});
  const DiagonalMixture<float> maps({.in = 4096, .out = 4096, .bases = bases}, rng);
  CHECK(maps.parameters().randlora_lambda.size() + maps.parameters().randlora_gamma.size() == 528'384);
}
