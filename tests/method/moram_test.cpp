// SPDX-License-Identifier: MIT
// The preset against the release's formula in plain loops, its invariants, and its gradients through both roles of z.
#include "mole/method/moram.hpp"

#include "core/error_code.hpp"
#include "method/method_checks.hpp"
#include "mole/execution/through_eigen.hpp"
#include "mole/surgery/merge.hpp"
#include "support/catch.hpp"

#include <numeric>

using namespace mole;
using namespace method_checks;

namespace {

/// Two tasks learned, a third begun; every B matters.
template <class Execution>
auto grown_layer(MoramOptions options, Execution execution) {
  Rng rng(1);
  auto layer = moram(options, DenseBase{weight, bias}, rng, execution);
  for (Index task = 0; task < 3; ++task) {
    if (task > 0) next_task(layer, 4, rng);
    fill_uniform(layer.experts().parameters().lora_B.view(), 1, rng);
  }
  return layer;
}

/// y as the release computes it.
template <class Layer>
Matrix<double> expected_output(const Layer& layer, const MoramOptions& options, const Matrix<double>& x,
                               bool training) {
  NoScratch none;
  const auto f = layer.experts().factors().factors(none);
  Matrix<double> y(x.rows(), 13);
  for (Index n = 0; n < x.rows(); ++n) {
    for (Index o = 0; o < 13; ++o)
      y(n, o) =
          std::inner_product(x.view().row(n).begin(), x.view().row(n).end(), weight.view().row(o).begin(), bias(0, o));
    std::vector<double> z;
    double square = 0;
    for (Index j = 0; j < f.a.rows(); ++j) {
      z.push_back(std::inner_product(f.a.row(j).begin(), f.a.row(j).end(), x.view().row(n).begin(), 0.0));
      square += z.back() * z.back();
    }
    std::vector<std::size_t> order(z.size());
    std::iota(order.begin(), order.end(), std::size_t(0));
    std::sort(order.begin(), order.end(), [&](auto i, auto j) { return z[i] > z[j]; });
    order.resize(std::size_t(std::max<Index>(options.k, 2)));
    double sum = 0;
    for (auto j : order) sum += std::exp(z[j] / std::sqrt(square) / options.temperature);
    for (auto j : order) {
      const double normal = z[j] / std::sqrt(square);
      if (!training && normal < options.min_score) continue;
      const double w = std::exp(normal / options.temperature) / sum;
      for (Index o = 0; o < 13; ++o) y(n, o) += w * z[j] * f.b(Index(j), o);
    }
  }
  return y;
}

const MoramOptions some{.ranks = {3}, .k = 3, .temperature = 0.2, .min_score = 0.3};

}  // namespace

TEMPLATE_TEST_CASE("moram computes what its release does, in training and in inference", "[method]", Reference, Simd<>,
                   ThroughEigen) {
  for (Index k : {1, 2, 3, 11}) {
    MoramOptions options = some;
    options.k = k, options.ranks = {11};
    const auto layer = grown_layer(options, TestType{});
    CAPTURE(k);
    for (bool training : {false, true})
      CHECK(support::largest_difference(support::output(layer, tokens, {.training = training}),
                                        expected_output(layer, options, tokens, training)) < 1e-13);
    CHECK(support::largest_difference(support::output(layer, tokens),
                                      support::output(layer, tokens, {.training = true})) > 1e-3);
  }
}

TEMPLATE_TEST_CASE("moram's gradients are exact through the value and through the score of z", "[method]", Reference,
                   Simd<>) {
  const auto worst = [](const MoramOptions& options, const CheckGradientsOptions& check) {
    auto layer = grown_layer(options, TestType{});
    const auto report = check_gradients(layer, check);
    CAPTURE(report.worst_tensor, report.moved);
    CHECK(report.checked > 100);
    return report.worst;
  };
  MoramOptions dropped = some, sharp = some;
  dropped.dropout = 0.3;
  sharp.temperature = 0.01;
  for (bool training : {false, true}) {
    CHECK(worst(some, {.pass = {.training = training}}) < 1e-8);
    CHECK(worst(dropped, {.pass = {.training = training, .seed = 4}}) < 1e-8);
    CHECK(worst(sharp, {.step = 1e-6, .pass = {.training = training}}) < 1e-7);
  }
}

TEMPLATE_TEST_CASE("moram is homogeneous: a token's length changes nothing but the adapter's", "[method]", Reference,
                   Simd<>) {
  const auto layer = grown_layer(some, TestType{});
  const auto base = [&](const Matrix<double>& in) {
    Matrix<double> y(in.rows(), 13);
    Reference{}.linear(View<const double>(in), LinearWeights<double>{.weight = weight, .bias = bias}, y.view());
    return y;
  };
  const auto adapted = [&](double c, auto& work) {
    Matrix<double> scaled = tokens;
    for (double& element : scaled.elements()) element *= c;
    Matrix<double> y(tokens.rows(), 13);
    layer.forward(scaled, y, work);
    const auto without = base(scaled);
    for (std::size_t i = 0; i < y.elements().size(); ++i) y.elements()[i] -= without.elements()[i];
    return y;
  };
  auto work = layer.workspace(40), scaled_work = layer.workspace(40);
  const auto one = adapted(1, work);
  for (double c : {0.01, 3.0, -1.0}) {
    const auto other = adapted(c, scaled_work);
    double most = 0;
    for (std::size_t i = 0; i < one.elements().size(); ++i)
      most = std::max(most, std::abs(other.elements()[i] - c * one.elements()[i]));
    double weights = 0;
    for (Index p = 0; p < work.routing.pairs(); ++p)
      weights = std::max(weights, std::abs(work.routing.gate(p) - scaled_work.routing.gate(p)));
    CAPTURE(c);
    CHECK((most < 1e-13) == (c > 0));
    CHECK((weights < 1e-13) == (c > 0));
  }
}

TEST_CASE("moram's weights sum to one in training, to at most one in inference, and few atoms pass", "[method]") {
  MoramOptions options{.ranks = {64}, .k = 64, .temperature = 0.1, .min_score = 0.3};
  Rng rng(1);
  const auto layer = moram(options, DenseBase{weight}, rng);
  auto work = layer.workspace(40);
  Matrix<double> y(40, 13);
  for (bool training : {true, false}) {
    layer.forward(tokens, y, work, {.training = training});
    for (Index n = 0; n < 40; ++n) {
      const auto w = work.routing.gates_of(n);
      const double sum = std::accumulate(w.begin(), w.end(), 0.0);
      const auto passed = std::count_if(w.begin(), w.end(), [](double v) { return v > 0; });
      if (training) CHECK(std::abs(sum - 1) < 1e-13);
      CHECK(sum < 1 + 1e-13);
      if (!training) CHECK(passed <= 11);  // 1 / 0.3^2, as the scores have length 1
      if (training) CHECK(passed == 64);
    }
  }
}

TEMPLATE_TEST_CASE("New atoms change moram's output at once, to what the shared norm and choice say", "[method]",
                   Reference, Simd<>) {
  auto layer = grown_layer(some, TestType{});
  const auto before = support::output(layer, tokens);
  Rng rng(9);
  next_task(layer, 5, rng);
  const auto after = support::output(layer, tokens);
  CHECK(support::largest_difference(after, before) > 1e-3);
  CHECK(support::largest_difference(after, expected_output(layer, some, tokens, false)) < 1e-13);
}

TEST_CASE("moram takes the release's defaults, refuses one atom alone, and merges into nothing", "[method]") {
  Rng rng(1);
  const auto layer = moram({}, DenseBase{weight, bias}, rng);
  CHECK(layer.gating().select.k == 16);
  CHECK(layer.gating().weigh.temperature == 0.01);
  CHECK(layer.gating().weigh.min_score == 0.2);
  CHECK(layer.experts().experts() == 16);
  CHECK(layer.experts().scale()[0] == 1);
  CHECK_FALSE(merge_obstacle(layer).empty());
  CHECK(support::largest_difference(support::output(layer, tokens), [] {
          Matrix<double> y(40, 13);
          Reference{}.linear(View<const double>(tokens), LinearWeights<double>{.weight = weight, .bias = bias},
                             y.view());
          return y;
        }()) < 1e-14);  // B is zero
  CHECK(moram({.k = 1}, DenseBase{weight}, rng).gating().select.k == 2);
  CHECK(test::code_of([&] { moram({.ranks = {1}, .k = 1}, DenseBase{weight}, rng); }) == ErrorCode::option);
}
