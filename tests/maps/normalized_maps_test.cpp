// SPDX-License-Identifier: MIT
#include "mole/maps/normalized_maps.hpp"

#include "core/error_code.hpp"
#include "mole/execution/thread_pool.hpp"
#include "mole/execution/through_eigen.hpp"
#include "mole/layer/check_gradients.hpp"
#include "mole/mole.hpp"
#include "mole/testing/expert_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <limits>
#include <map>

using namespace mole;

namespace {

template <class T>
using NormalizedDense = NormalizedMaps<DenseMaps<T>>;

/// Experts whose parameters and running moments are all others than at the start.
template <class T>
auto normalized_experts(Index experts, Index in = 5, Index out = 7) {
  Rng rng(1);
  MapExperts<NormalizedDense<T>> made({.maps = {.in = in, .out = out, .experts = experts, .bias = true}, .alpha = 2},
                                      rng);
  auto parameters = made.parameters();
  fill_uniform(parameters.weight.view(), 1, rng);
  fill_uniform(parameters.bias.view(), 1, rng);
  fill_uniform(made.maps().running().mean(), 1, rng);
  for (T& variance : std::span(made.maps().running().variance().data(), std::size_t(experts * out)))
    variance = T(0.5 + unit_interval(rng()));
  return made;
}

template <class T, class Execution = Reference>
auto normalized_layer(const MapExperts<NormalizedDense<T>>& experts, Execution execution = {}) {
  Rng rng(5);
  const Index count = experts.experts();
  return MixtureLinear(LinearRouter<T>({.in = experts.in(), .experts = count}, rng),
                       Gate{Softmax{}, TopK{std::min<Index>(2, count)}, Renormalized{}}, experts,
                       DenseBase(support::random_matrix<T>(experts.out(), experts.in(), 6)), execution);
}

long double silu_of(long double v) {
  return v / (1 + std::exp(-v));
}

/// What expert e makes of some rows of x, in plain loops; also their moments.
struct PlainExpert {
  std::vector<std::vector<long double>> y;
  std::vector<long double> mean, variance;

  PlainExpert(const MapExperts<NormalizedDense<double>>& experts, Index e, const Matrix<double>& x,
              const std::vector<Index>& rows, bool training)
      : y(rows.size(), std::vector<long double>(std::size_t(experts.out()))) {
    const auto& maps = experts.maps();
    const auto parameters = experts.parameters();
    for (Index o = 0; o < experts.out(); ++o) {
      std::vector<long double> z;
      long double m = 0, v = 0;
      for (Index n : rows) {
        z.push_back(maps.maps().parameters().bias(e, o));
        for (Index i = 0; i < x.cols(); ++i)
          z.back() += (long double)(maps.maps().parameters().weight(e * experts.out() + o, i)) * x(n, i);
        m += z.back() / (long double)(rows.size());
      }
      for (long double value : z) v += (value - m) * (value - m) / (long double)(rows.size());
      mean.push_back(m), variance.push_back(v);
      if (!training) m = maps.running().mean()(e, o), v = maps.running().variance()(e, o);
      for (std::size_t r = 0; r < rows.size(); ++r)
        y[r][std::size_t(o)] =
            silu_of(parameters.weight(e, o) * (z[r] - m) / std::sqrt(v + 1e-5L) + parameters.bias(e, o));
    }
  }
};

std::vector<Index> tokens_of(const Routing<double>& routing, Index e) {
  std::vector<Index> tokens;
  for (int pair : routing.pairs_of(e)) tokens.push_back(routing.token(pair));
  return tokens;
}

}  // namespace

TEST_CASE("NormalizedMaps are the formula in long double, in training and in evaluation, under every execution",
          "[maps]") {
  const auto experts = normalized_experts<double>(3);
  const auto x = support::random_matrix<double>(9, 5, 3);
  const auto check = [&](auto execution, bool training) {
    const auto layer = normalized_layer(experts, execution);
    Matrix<double> y(9, 7);
    auto work = layer.workspace(9);
    layer.forward(x, y, work, {.training = training});
    Matrix<double> expected(9, 7);
    for (Index n = 0; n < 9; ++n)
      for (Index o = 0; o < 7; ++o)
        for (Index i = 0; i < 5; ++i) expected(n, o) += layer.base().weight()(o, i) * x(n, i);
    for (Index e = 0; e < 3; ++e) {
      const auto tokens = tokens_of(work.routing, e);
      const PlainExpert plain(experts, e, x, tokens, training);
      for (std::size_t r = 0; r < tokens.size(); ++r)
        for (Index o = 0; o < 7; ++o)
          expected(tokens[r], o) +=
              double(2 * plain.y[r][std::size_t(o)]) * work.routing.gate(work.routing.pairs_of(e)[r]);
    }
    CHECK(support::largest_difference(y, expected) < 1e-13);
  };
  for (bool training : {false, true}) check(Reference{}, training), check(Simd<>{}, training);
  for (bool training : {false, true}) check(ThroughEigen{}, training);
}

TEST_CASE("NormalizedMaps have exact gradients through the moments of the batch, and in evaluation", "[maps]") {
  for (Index experts : {1, 4})
    for (bool training : {false, true}) {
      auto layer = normalized_layer(normalized_experts<double>(experts));
      // In training the bias before the normalization changes nothing, so its gradient is rounding.
      const auto report = check_gradients(layer, {.tokens = 12, .pass = {.training = training}});
      CHECK(report.worst < 1e-6);
      CHECK(report.checked > 0);
      CHECK(report.unseen == (training ? std::vector<std::string>{"experts.maps.bias"} : std::vector<std::string>{}));
    }
}

TEST_CASE("NormalizedMaps keep the laws of experts, and have the same bits on threads", "[maps]") {
  for (Index experts : {1, 4}) CHECK(laws::broken_expert_law(normalized_experts<float>(experts)) == "");
  const auto x = support::random_matrix<float>(9, 5, 3), d_y = support::random_matrix<float>(9, 150, 4);
  const auto results = [&](auto execution) {
    auto layer = normalized_layer(normalized_experts<float>(3, 5, 150), execution);
    auto work = layer.workspace(9);
    auto gradients = layer.gradients();
    Matrix<float> y(9, 150), d_x(9, 5);
    layer.forward(x, y, work, {.training = true});
    layer.backward(x, d_y, d_x, gradients, work);
    layer.experts().maps().running().update(work.experts_scratch.maps.batch);
    Matrix<float> mean(3, 150);
    copy(std::as_const(layer.experts().maps().running()).mean(), mean.view());
    return std::vector<Matrix<float>>{y, d_x, gradients.experts.weight, gradients.experts.maps.weight, mean};
  };
  const auto one = results(Simd<>{});
  for (int threads : {2, 5}) {
    const auto some = results(Simd(ThreadPool(threads)));
    for (std::size_t i = 0; i < one.size(); ++i) CHECK(support::same_bits(one[i], some[i]));
  }
}

TEST_CASE("The features of each expert of NormalizedMaps have mean 0 and variance 1 over its own tokens before SiLU",
          "[maps]") {
  struct NoActivation {
    float value(float z) const { return z; }
    double value(double z) const { return z; }
    float derivative(float) const { return 1; }
    double derivative(double) const { return 1; }
  };
  Rng rng(2);
  using Maps = NormalizedMaps<DenseMaps<double>, NoActivation>;
  const MapExperts<Maps> experts({.maps = {.in = 5, .out = 7, .experts = 3}, .eps = 1e-12}, rng);
  const auto x = support::random_matrix<double>(40, 5, 3);
  Routing<double> routing;
  routing.start(3);
  for (Index n = 0; n < 40; ++n) {
    if (n % 4 < 3) routing.push(int(n % 4), 1.0);
    routing.end_token();
  }
  routing.finish();
  Matrix<double> y(40, 7);
  laws::Harness<MapExperts<Maps>> harness(experts, 40, 120, {.training = true});
  experts.forward(x, {}, routing, y.view(), harness.call());
  for (Index e = 0; e < 3; ++e)
    for (Index o = 0; o < 7; ++o) {
      double mean = 0, square = 0;
      for (Index n : tokens_of(routing, e)) mean += y(n, o) / 10, square += y(n, o) * y(n, o) / 10;
      CHECK(std::abs(mean) < 1e-14);
      CHECK(std::abs(square - 1) < 1e-9);
    }
}

TEST_CASE("A token that an expert of NormalizedMaps does not serve is in none of its moments, NaN or not", "[maps]") {
  auto layer = normalized_layer(normalized_experts<double>(3));
  auto x = support::random_matrix<double>(9, 5, 3);
  const auto d_y = support::random_matrix<double>(9, 7, 4);
  std::vector<std::uint8_t> routed(9, 1);
  routed[2] = routed[7] = 0;
  const auto results = [&](double of_dropped) {
    fill(x.view().middle_rows(2, 1), of_dropped), fill(x.view().middle_rows(7, 1), of_dropped);
    auto copied = layer;
    auto work = copied.workspace(9);
    auto gradients = copied.gradients();
    Matrix<double> y(9, 7), d_x(9, 5);
    copied.forward(x, y, work, {.training = true, .routed = routed});
    copied.backward(x, d_y, d_x, gradients, work);
    copied.experts().maps().running().update(work.experts_scratch.maps.batch);
    Matrix<double> moments(6, 7);
    copy(std::as_const(copied.experts().maps().running()).mean(), moments.view().top(3));
    copy(std::as_const(copied.experts().maps().running()).variance(), moments.view().middle_rows(3, 3));
    for (Index n : {2, 7}) fill(y.view().middle_rows(n, 1), 0.0);
    return std::vector<Matrix<double>>{y,
                                       d_x,
                                       moments,
                                       gradients.router.weight,
                                       gradients.experts.weight,
                                       gradients.experts.bias,
                                       gradients.experts.maps.weight,
                                       gradients.experts.maps.bias};
  };
  const auto one = results(1), none = results(std::numeric_limits<double>::quiet_NaN());
  for (std::size_t i = 0; i < one.size(); ++i) CHECK(support::same_bits(one[i], none[i]));
}

TEST_CASE("A single row of NormalizedMaps in training gives act(bias) without a gradient, and moves no moment",
          "[maps]") {
  auto experts = normalized_experts<double>(2);
  const auto x = support::random_matrix<double>(1, 5, 3), d_y = support::random_matrix<double>(1, 7, 4);
  const Routing<double> routing = Routing<double>::from_labels(std::vector<int>{1}, 2);
  using Normalized = MapExperts<NormalizedDense<double>>;
  laws::Harness<Normalized> harness(experts, 1, 2, {.training = true});
  Matrix<double> y(1, 7), d_x(1, 5);
  experts.forward(x, {}, routing, y.view(), harness.call());
  auto gradients = zeros_like(ParametersOf<Normalized>(parameters_of(experts)));
  experts.backward(x, routing, d_y, {}, d_x.view(), gradients, harness.call());
  const Matrix<double> before = [&] {
    Matrix<double> mean(2, 7);
    copy(std::as_const(experts.maps().running()).mean(), mean.view());
    return mean;
  }();
  experts.maps().running().update(harness.scratch().maps.batch);
  for (Index o = 0; o < 7; ++o) {
    CHECK(std::abs(y(0, o) - 2 * double(silu_of(experts.parameters().bias(1, o)))) < 1e-14);
    CHECK(gradients.weight(1, o) == 0);
    CHECK(gradients.bias(1, o) != 0);
    for (Index e = 0; e < 2; ++e) CHECK(experts.maps().running().mean()(e, o) == before(e, o));
  }
  for (double d : d_x.elements()) CHECK(d == 0);
}

TEST_CASE("The running moments of NormalizedMaps move once for each forward that trained, with the unbiased variance",
          "[maps]") {
  auto layer = normalized_layer(normalized_experts<double>(3));
  const auto x = support::random_matrix<double>(9, 5, 3), d_y = support::random_matrix<double>(9, 7, 4);
  const auto moments = [&](bool variance) {
    auto& running = layer.experts().maps().running();
    Matrix<double> found(3, 7);
    copy(View<const double>(variance ? running.variance() : running.mean()), found.view());
    return found;
  };
  const auto update = [&](auto& work) { layer.experts().maps().running().update(work.experts_scratch.maps.batch); };
  Matrix<double> y(9, 7), d_x(9, 5);
  const auto mean = moments(false), variance = moments(true);
  auto work = layer.workspace(9);
  layer.forward(x, y, work, {.training = true});
  for (const bool backward_first : {false, true}) {
    if (backward_first) {
      layer.forward(x, y, work, {.training = true});
      layer.forward(x, y, work);  // in evaluation there is nothing to add, and what was there is gone
      const auto kept = moments(false);
      update(work);
      CHECK(support::same_bits(moments(false), kept));
      layer.forward(x, y, work, {.training = true});
      auto gradients = layer.gradients();
      layer.backward(x, d_y, d_x, gradients, work);  // computes the same moments again, and leaves none
    }
    const auto old_mean = moments(false), old_variance = moments(true);
    update(work);
    update(work);
    if (!backward_first) {
      auto gradients = layer.gradients();
      layer.backward(x, d_y, d_x, gradients, work);
      update(work);
    }
    for (Index e = 0; e < 3; ++e) {
      const auto tokens = tokens_of(work.routing, e);
      const PlainExpert plain(layer.experts(), e, x, tokens, true);
      const double n = double(tokens.size());
      for (Index o = 0; o < 7; ++o) {
        const double batch = double(plain.mean[std::size_t(o)]), spread = double(plain.variance[std::size_t(o)]);
        const bool moves = tokens.size() > 1;
        CHECK(std::abs(moments(false)(e, o) - (moves ? 0.9 * old_mean(e, o) + 0.1 * batch : old_mean(e, o))) < 1e-14);
        CHECK(std::abs(moments(true)(e, o) -
                       (moves ? 0.9 * old_variance(e, o) + 0.1 * spread * n / (n - 1) : old_variance(e, o))) < 1e-14);
      }
    }
  }
  CHECK_FALSE(support::same_bits(moments(false), mean));
}

TEST_CASE("A layer's state holds the running moments of NormalizedMaps; with them a copy evaluates alike", "[maps]") {
  auto layer = normalized_layer(normalized_experts<double>(3));
  std::map<std::string, std::vector<double>> state;
  layer.for_each_state([&]<class U>(std::string_view name, std::span<U> numbers) {
    state[std::string(name)].assign(numbers.begin(), numbers.end());
  });
  CHECK(state.contains("experts.running.mean"));
  CHECK(state.contains("experts.running.variance"));
  const auto x = support::random_matrix<double>(9, 5, 3);
  auto other = layer;
  other.experts().maps().running().reset();
  CHECK_FALSE(support::same_bits(support::output(layer, x), support::output(other, x)));
  other.for_each_state([&]<class U>(std::string_view name, std::span<U> numbers) {
    const auto& saved = state.at(std::string(name));
    REQUIRE(saved.size() == numbers.size());
    std::transform(saved.begin(), saved.end(), numbers.begin(), [](double v) { return U(v); });
  });
  CHECK(support::same_bits(support::output(layer, x), support::output(other, x)));
}

TEST_CASE("NormalizedMaps and RunningMoments refuse options and sizes that make no sense", "[maps]") {
  Rng rng;
  using Maps = NormalizedMaps<DenseMaps<float>>;
  const DenseMaps<float>::Options inner{.in = 2, .out = 3, .experts = 2};
  CHECK(test::code_of([&] { Maps({.maps = inner, .eps = 0}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Maps({.maps = inner, .momentum = 1.5}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Maps({.maps = {.in = 2, .out = 3, .alpha = 2}}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Maps({.maps = {.in = 2, .out = 3, .dropout = {.rate = 0.1}}}, rng); }) ==
        ErrorCode::option);
  CHECK(test::code_of([&] { RunningMoments<float>(0, 2, 0.1); }) == ErrorCode::option);
  CHECK(test::code_of([&] { RunningMoments<float>(2, 2, std::nan("")); }) == ErrorCode::option);
  Matrix<float> count(1, 2), two(2, 2);
  RunningMoments<float> running(2, 3, 0.1);
  CHECK(test::code_of([&] { running.update({count.view(), two.view(), two.view()}); }) == ErrorCode::shape);
  Maps maps({.maps = inner}, rng);
  auto parameters = maps.parameters();
  parameters.weight = Matrix<float>(2, 2);
  CHECK(test::code_of([&] { maps.check_sizes(); }) == ErrorCode::shape);
}
