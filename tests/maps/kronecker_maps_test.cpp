// SPDX-License-Identifier: MIT
#include "mole/maps/kronecker_maps.hpp"

#include "core/error_code.hpp"
#include "mole/execution/thread_pool.hpp"
#include "mole/layer/check_gradients.hpp"
#include "mole/mole.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;
using Pair = std::array<Index, 2>;

namespace {

constexpr Index kron_in = 12, kron_out = 20;

template <class T>
auto kronecker(typename KroneckerMaps<T>::Options options) {
  Rng rng(1);
  options.in = kron_in, options.out = kron_out, options.alpha = 6;
  MapExperts<KroneckerMaps<T>> experts(options, rng);
  KroneckerMaps<T>::Parameters::for_each_tensor(
      [&](std::string_view, Matrix<T>& tensor) { fill_uniform(tensor.view(), 1, rng); }, experts.parameters());
  return experts;
}

template <class T, class Execution = Simd<>>
auto kronecker_layer(const MapExperts<KroneckerMaps<T>>& experts, Execution execution = {}) {
  Rng rng(5);
  const Index count = experts.experts();
  return MixtureLinear(LinearRouter<T>({.in = kron_in, .experts = count}, rng),
                       Gate{Softmax{}, TopK{std::min<Index>(2, count)}, Renormalized{}}, experts,
                       DenseBase(support::random_matrix<T>(kron_out, kron_in, 6)), execution);
}

/// All ways to hold W1 and W2: whole, W2 of rank 1, both of rank 1, W1 of at most 2 rows and columns.
const std::vector<KroneckerMaps<double>::Options> kinds{{.experts = 2, .rank = 3},
                                                        {.experts = 2, .rank = 1},
                                                        {.experts = 2, .rank = 1, .decompose_both = true},
                                                        {.experts = 3, .rank = 2, .factor = 2}};

}  // namespace

TEST_CASE("Sizes are cut into two factors, near to square roots or as asked for", "[maps]") {
  const auto factors = [](Index size, Index factor) {
    Rng rng;
    return KroneckerMaps<double>({.in = size, .out = size, .factor = factor}, rng).factors_of_in();
  };
  CHECK(factors(256, 0) == Pair{16, 16});
  CHECK(factors(128, 0) == Pair{8, 16});
  CHECK(factors(127, 0) == Pair{1, 127});
  CHECK(factors(128, 4) == Pair{4, 32});
  CHECK(factors(128, 32) == Pair{4, 32});
  CHECK(factors(128, 5) == Pair{4, 32});
  CHECK(factors(1, 0) == Pair{1, 1});
}

TEST_CASE("KroneckerMaps add the Kronecker product of their two matrices", "[maps]") {
  for (const auto& options : kinds) {
    const auto experts = kronecker<double>(options);
    const auto& p = experts.parameters();
    const auto [m, n] = experts.maps().factors_of_in();
    const auto [l, k] = experts.maps().factors_of_out();
    const auto entry = [&](const Matrix<double>& whole, const Matrix<double>& a, const Matrix<double>& b, Index rows,
                           Index e, Index r, Index c) {
      if (!whole.empty()) return whole(e * rows + r, c);
      double sum = 0;
      for (Index q = 0; q < options.rank; ++q) sum += a(e * rows + r, q) * b(e * options.rank + q, c);
      return sum;
    };
    for (Index e = 0; e < options.experts; ++e) {
      Matrix<double> delta(kron_out, kron_in);
      experts.add_delta(e, 0.5, delta.view());
      for (Index o = 0; o < kron_out; ++o)
        for (Index i = 0; i < kron_in; ++i) {
          const double expected = entry(p.lokr_w1, p.lokr_w1_a, p.lokr_w1_b, l, e, o / k, i / n) *
                                  entry(p.lokr_w2, p.lokr_w2_a, p.lokr_w2_b, k, e, o % k, i % n);
          CHECK(std::abs(delta(o, i) - 0.5 * 6 / double(options.rank) * expected) < 1e-13);
        }
    }
  }
}

TEST_CASE("KroneckerMaps are right under every execution, and their gradients exact", "[maps]") {
  const auto x = support::random_matrix<double>(7, kron_in, 3);
  for (const auto& options : kinds) {
    const auto experts = kronecker<double>(options);
    auto layer = kronecker_layer(experts, Reference{});
    Matrix<double> expected(7, kron_out);
    auto work = layer.workspace(7);
    layer.forward(x, expected, work);
    for (Index n = 0; n < 7; ++n) {  // by the merged weight of each token
      Matrix<double> weight(kron_out, kron_in);
      for (Index r = 0; r < kron_out; ++r)
        std::copy_n(layer.base().weight().row_data(r), kron_in, weight.view().row_data(r));
      const auto chosen = work.routing.experts_of(n);
      for (std::size_t j = 0; j < chosen.size(); ++j)
        experts.add_delta(chosen[j], std::as_const(work.routing).gates_of(n)[j], weight.view());
      for (Index o = 0; o < kron_out; ++o) {
        double y = 0;
        for (Index i = 0; i < kron_in; ++i) y += weight(o, i) * x(n, i);
        CHECK(std::abs(expected(n, o) - y) < 1e-12);
      }
    }
    CHECK(support::largest_difference(support::output(kronecker_layer(experts, Simd<>{}), x), expected) < 1e-12);
    CHECK(check_gradients(layer, {.pass = {.training = true}}).worst < 1e-8);
    auto by_simd = kronecker_layer(experts);
    CHECK(check_gradients(by_simd).worst < 1e-8);
  }
}

TEST_CASE("KroneckerMaps have the same bits on any number of threads", "[maps]") {
  const auto experts = kronecker<float>({.experts = 3, .rank = 2});
  const auto x = support::random_matrix<float>(9, kron_in, 3), d_y = support::random_matrix<float>(9, kron_out, 4);
  const auto results = [&](auto execution) {
    auto layer = kronecker_layer(experts, execution);
    auto work = layer.workspace(9);
    auto gradients = layer.gradients();
    Matrix<float> y(9, kron_out), d_x(9, kron_in);
    layer.forward(x, y, work);
    layer.backward(x, d_y, d_x, gradients, work);
    return std::vector<Matrix<float>>{y, d_x, gradients.experts.lokr_w1, gradients.experts.lokr_w2,
                                      gradients.router.weight};
  };
  const auto one = results(Simd<>{}), three = results(Simd(ThreadPool(3)));
  for (std::size_t i = 0; i < one.size(); ++i) CHECK(support::same_bits(one[i], three[i]));
}

TEST_CASE("A row's bits under KroneckerMaps do not depend on the others", "[maps]") {
  const auto experts = kronecker<float>({.experts = 3, .rank = 2});
  const auto layer = MixtureLinear(NoRouter<float>(3), Gate{Identity{}, All{}, Unit{}}, experts,
                                   NoBase<float>(kron_in, kron_out), Simd<>{});
  const auto x = support::random_matrix<float>(70, kron_in, 3);
  const auto all = support::output(layer, x);
  for (Index n : {0, 31, 32, 69}) {
    Matrix<float> one(1, kron_in);
    copy(x.view().middle_rows(n, 1), one.view());
    CHECK(std::ranges::equal(support::output(layer, one).elements(), all.view().row(n)));
  }
}

TEST_CASE("KroneckerMaps refuse sizes that are none, and parameters that do not fit", "[maps]") {
  Rng rng;
  using Maps = KroneckerMaps<double>;
  CHECK(test::code_of([&] { Maps({.in = 0, .out = 3}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Maps({.in = 3, .out = 3, .rank = 0}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Maps({.in = 3, .out = 3, .factor = -3}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Maps({.in = 16, .out = 16, .experts = Index(1) << 62}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Maps({.in = 16, .out = 16, .rank = std::numeric_limits<Index>::max()}, rng); }) ==
        std::nullopt);
  Maps maps({.in = 12, .out = 20, .rank = 1}, rng);
  maps.parameters().lokr_w1 = Matrix<double>(1, 1);
  CHECK(test::code_of([&] { maps.check_sizes(); }) == ErrorCode::shape);
}

TEST_CASE("KroneckerMaps of given factors are their product, whatever the sizes", "[maps]") {
  const auto of = [](Index rows, Index cols, std::uint64_t seed) {
    return support::random_matrix<double>(rows, cols, seed);
  };
  for (const bool whole : {true, false}) {
    KroneckerMaps<double>::Parameters parameters;
    parameters.lokr_w1 = of(5, 4, 1);  // more rows and columns than W2 has
    if (whole)
      parameters.lokr_w2 = of(2, 3, 2);
    else
      parameters.lokr_w2_a = of(2, 7, 3), parameters.lokr_w2_b = of(7, 3, 4);
    const MapExperts<KroneckerMaps<double>> experts(KroneckerMaps<double>(parameters), {0.5});
    CHECK(experts.in() == 12);
    CHECK(experts.out() == 10);
    Matrix<double> delta(10, 12);
    experts.add_delta(0, 1, delta.view());
    for (Index o = 0; o < 10; ++o)
      for (Index i = 0; i < 12; ++i) {
        double w2 = whole ? parameters.lokr_w2(o % 2, i % 3) : 0;
        for (Index r = 0; r < parameters.lokr_w2_a.cols(); ++r)
          w2 += parameters.lokr_w2_a(o % 2, r) * parameters.lokr_w2_b(r, i % 3);
        CHECK(delta(o, i) == Approx(0.5 * parameters.lokr_w1(o / 2, i / 3) * w2).epsilon(1e-12));
      }
  }
  using Maps = KroneckerMaps<double>;
  const Matrix<double> none, one(1, 1), row(1, 2), column(2, 1);
  for (const Maps::Parameters& wrong :
       {Maps::Parameters{none, none, none, none, none, none}, Maps::Parameters{one, none, none, none, none, none},
        Maps::Parameters{one, one, none, one, none, none}, Maps::Parameters{one, none, none, none, row, one},
        Maps::Parameters{none, row, column, none, one, one}})
    CHECK(test::code_of([&] { const Maps maps(wrong); }) == ErrorCode::shape);
}

TEST_CASE("KroneckerMaps have the numbers that they say", "[maps]") {
  Rng rng;
  const KroneckerMaps<float> maps({.in = 4096, .out = 4096, .rank = 8}, rng);
  Index numbers = 0;
  KroneckerMaps<float>::Parameters::for_each_tensor(
      [&](std::string_view, const Matrix<float>& tensor) { numbers += tensor.size(); }, maps.parameters());
  CHECK(numbers == 5'120);
}
