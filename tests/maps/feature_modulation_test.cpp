// SPDX-License-Identifier: MIT
#include "mole/maps/feature_modulation.hpp"

#include "core/error_code.hpp"
#include "mole/execution/thread_pool.hpp"
#include "mole/execution/through_eigen.hpp"
#include "mole/layer/check_gradients.hpp"
#include "mole/mole.hpp"
#include "mole/testing/expert_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <cmath>

using namespace mole;
using enum ModulationForm;

namespace {

constexpr ModulationForm all_forms[] = {vector, diagonal, low_rank, full};

template <class T>
auto modulation(ModulationForm form, Index features, Index experts = 3, double dropout = 0) {
  Rng rng(1);
  MapExperts<FeatureModulation<T>> made({.features = features,
                                         .experts = experts,
                                         .form = form,
                                         .rank = 2,
                                         .alpha = 1.5,
                                         .dropout = {.rate = dropout, .stream = 1}},
                                        rng);
  FeatureModulation<T>::Parameters::for_each_tensor(
      [&](std::string_view, Matrix<T>& tensor) { fill_uniform(tensor.view(), 1, rng); }, made.parameters());
  return made;
}

template <class T, class Execution = Simd<>>
auto modulation_layer(const MapExperts<FeatureModulation<T>>& experts, Execution execution = {}) {
  Rng rng(5);
  const Index count = experts.experts();
  return MixtureLinear(LinearRouter<T>({.in = experts.in(), .experts = count}, rng),
                       Gate{Softmax{}, TopK{std::min<Index>(2, count)}, Renormalized{}}, experts,
                       DenseBase(support::random_matrix<T>(experts.in(), experts.in(), 6)), execution);
}

/// (P u + p)_i u_i + (Q u + q)_i of expert e, by the definition.
double modulated(const FeatureModulation<double>& maps, Index e, std::span<const double> u, Index i) {
  const auto& p = maps.parameters();
  const auto of = [&](const Matrix<double>& weight, const Matrix<double>& a, const Matrix<double>& b,
                      const Matrix<double>& bias) {
    double sum = bias(e, i);
    if (maps.form() == diagonal) sum += weight(e, i) * u[std::size_t(i)];
    for (Index j = 0; j < maps.in() && maps.form() == full; ++j)
      sum += weight(e * maps.in() + i, j) * u[std::size_t(j)];
    const Index ranks = a.rows() / maps.experts();
    for (Index r = e * ranks; r < (e + 1) * ranks; ++r)
      for (Index j = 0; j < maps.in(); ++j) sum += b(r, i) * a(r, j) * u[std::size_t(j)];
    return sum;
  };
  return of(p.scale_weight, p.scale_A, p.scale_B, p.scale_bias) * u[std::size_t(i)] +
         of(p.shift_weight, p.shift_A, p.shift_B, p.shift_bias);
}

Index numbers_of(const FeatureModulation<float>& maps) {
  Index numbers = 0;
  FeatureModulation<float>::Parameters::for_each_tensor(
      [&](std::string_view, const Matrix<float>& tensor) { numbers += tensor.size(); }, maps.parameters());
  return numbers;
}

}  // namespace

TEST_CASE("FeatureModulation scales and shifts features, in all forms and under every execution", "[maps]") {
  for (ModulationForm form : all_forms)
    for (Index features : {1, 7, 150})
      for (Index rows : {0, 1, 9}) {
        const auto experts = modulation<double>(form, features);
        const auto u = support::random_matrix<double>(rows, features, 3);
        const auto check = [&](auto execution) {
          const auto layer = modulation_layer(experts, execution);
          Matrix<double> y(rows, features);
          auto work = layer.workspace(rows);
          layer.forward(u, y, work);
          double worst = 0;
          for (Index n = 0; n < rows; ++n)
            for (Index i = 0; i < features; ++i) {
              double expected = 0;
              for (Index j = 0; j < features; ++j) expected += layer.base().weight()(i, j) * u(n, j);
              for (Index p = work.routing.first_pair(n); p < work.routing.first_pair(n + 1); ++p)
                expected +=
                    1.5 * work.routing.gate(p) * modulated(experts.maps(), work.routing.expert(p), u.view().row(n), i);
              worst = std::max(worst, std::abs(y(n, i) - expected));
            }
          CHECK(worst < 1e-11);
        };
        check(Reference{}), check(Simd<>{}), check(ThroughEigen{});
      }
}

TEST_CASE("FeatureModulation keeps the laws of experts, and has exact gradients in all forms", "[maps]") {
  for (ModulationForm form : all_forms) {
    CHECK(laws::broken_expert_law(modulation<float>(form, 7)) == "");
    CHECK(laws::broken_expert_law(modulation<double>(form, 5, 1)) == "");
    for (double dropout : {0.0, 0.4}) {
      auto layer = modulation_layer(modulation<double>(form, 6, 3, dropout), Reference{});
      CHECK(check_gradients(layer, {.pass = {.training = true, .seed = 3}}).passed(1e-8));
    }
    auto by_simd = modulation_layer(modulation<double>(form, 70, 1));
    CHECK(check_gradients(by_simd, {.tokens = 3}).passed(1e-8));
  }
}

TEST_CASE("Frozen tensors of FeatureModulation stay as they are, and change no other gradient", "[maps]") {
  for (ModulationForm form : all_forms) {
    const auto layer = modulation_layer(modulation<double>(form, 6));
    const auto u = support::random_matrix<double>(5, 6, 3), d_y = support::random_matrix<double>(5, 6, 4);
    const auto backward = [&](std::string_view frozen) {
      auto work = layer.workspace(5);
      auto gradients = layer.gradients();
      FeatureModulation<double>::Parameters::for_each_tensor(
          [&](std::string_view name, Matrix<double>& tensor) {
            if (name == frozen) tensor = {};
          },
          gradients.experts);
      Matrix<double> y(5, 6), d_u(5, 6);
      layer.forward(u, y, work);
      layer.backward(u, d_y, d_u, gradients, work);
      return std::pair(gradients.experts, d_u);
    };
    const auto all = backward("");
    for (const char* frozen :
         {"scale_weight", "scale_A", "scale_B", "scale_bias", "shift_weight", "shift_A", "shift_B", "shift_bias"}) {
      auto some = backward(frozen);
      auto expected = all.first;
      CHECK(support::same_bits(some.second, all.second));
      FeatureModulation<double>::Parameters::for_each_tensor(
          [&](std::string_view name, const Matrix<double>& found, const Matrix<double>& wanted) {
            CHECK((name == frozen ? found.empty() : support::same_bits(found, wanted)));
          },
          some.first, expected);
    }
  }
}

TEST_CASE("FeatureModulation has the same bits on any number of threads", "[maps]") {
  const auto u = support::random_matrix<float>(9, 150, 3), d_y = support::random_matrix<float>(9, 150, 4);
  for (ModulationForm form : all_forms) {
    const auto experts = modulation<float>(form, 150);
    const auto results = [&](auto execution) {
      const auto layer = modulation_layer(experts, execution);
      auto work = layer.workspace(9);
      auto gradients = layer.gradients();
      Matrix<float> y(9, 150), d_u(9, 150);
      layer.forward(u, y, work);
      layer.backward(u, d_y, d_u, gradients, work);
      std::vector<Matrix<float>> all{y, d_u, gradients.router.weight};
      FeatureModulation<float>::Parameters::for_each_tensor(
          [&](std::string_view, const Matrix<float>& tensor) { all.push_back(tensor); }, gradients.experts);
      return all;
    };
    const auto one = results(Simd<>{}), three = results(Simd(ThreadPool(3)));
    for (std::size_t i = 0; i < one.size(); ++i) CHECK(support::same_bits(one[i], three[i]));
  }
}

TEST_CASE("Modulations that sum per token add what one expert after the other adds", "[maps]") {
  for (ModulationForm form : {vector, diagonal}) {
    const auto maps = modulation<double>(form, 150).maps();
    const auto u = support::random_matrix<double>(1, 150, 3), before = support::random_matrix<double>(1, 150, 4);
    const double weights[] = {0.7, -0.4, 1.2};
    Matrix<double> at_once = before, in_turn = before, one(1, 150);
    maps.add_sum(
        3, [](Index j) { return 2 - j; }, [&](Index j) { return weights[2 - j]; }, u.view().row(0),
        at_once.view().row(0));
    laws::Harness harness(maps, CallSize{.tokens = 1});
    for (Index e = 0; e < 3; ++e) {
      maps.map(e, u, one.view(), harness.call());
      for (Index i = 0; i < 150; ++i) in_turn(0, i) += weights[e] * one(0, i);
    }
    CHECK(support::largest_difference(at_once, in_turn) < 1e-14);
  }
}

TEST_CASE("A sum of modulations under fixed weights collapses to one of the same form", "[maps]") {
  const auto u = support::random_matrix<double>(5, 6, 3);
  const std::vector<double> weights{0.7, -0.4, 1.2};
  for (ModulationForm form : all_forms) {
    const auto maps = modulation<double>(form, 6).maps();
    const auto one = maps.collapsed(weights);
    CHECK(one.experts() == 1);
    CHECK(one.form() == form);
    one.check_sizes();
    for (Index n = 0; n < 5; ++n)
      for (Index i = 0; i < 6; ++i) {
        double expected = 0;
        for (Index e = 0; e < 3; ++e) expected += weights[std::size_t(e)] * modulated(maps, e, u.view().row(n), i);
        CHECK(std::abs(modulated(one, 0, u.view().row(n), i) - expected) < 1e-13);
      }
    CHECK(test::code_of([&] { maps.collapsed(std::vector<double>{1, 2}); }) == ErrorCode::shape);
  }
}

TEST_CASE("Fresh modulations are the identity under gates that sum to 1, and add nothing if they start at 0",
          "[maps]") {
  Rng rng(2);
  const auto u = support::random_matrix<double>(9, 7, 3);
  for (ModulationForm form : all_forms) {
    const MapExperts<FeatureModulation<double>> identity({.features = 7, .experts = 4, .form = form}, rng);
    const auto mixed = [&](auto gate) {
      return support::output(MixtureLinear(LinearRouter<double>({.in = 7, .experts = 4}, rng), gate, identity,
                                           NoBase<double>(7, 7), Simd<>{}),
                             u);
    };
    CHECK(support::same_bits(mixed(Gate{Softmax{}, TopK{1}, Unit{}}), u));
    CHECK(support::largest_difference(mixed(support::top_2()), u) < 1e-15);
    const MapExperts<FeatureModulation<double>> nothing({.features = 7, .form = form, .start = 0}, rng);
    const auto routing = laws::some_routing<double>(9, 1, {1});
    CHECK(support::same_bits(laws::added(nothing, u, routing, u), u));
    const FeatureModulation<double> random({.features = 7, .form = form, .random = true}, rng);
    FeatureModulation<double>::Parameters::for_each_tensor(
        [](std::string_view, const Matrix<double>& tensor) {
          for (double number : tensor.elements()) CHECK((number != 0 && std::abs(number) <= 1 / std::sqrt(7.0)));
        },
        random.parameters());
  }
}

TEST_CASE("FeatureModulation refuses sizes below 1, and parameters that do not fit", "[maps]") {
  Rng rng;
  using Maps = FeatureModulation<double>;
  CHECK(test::code_of([&] { Maps({.features = 0}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Maps({.features = 3, .experts = 0}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Maps({.features = 3, .rank = 0}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Maps({.features = 3, .start = std::nan("")}, rng); }) == ErrorCode::option);
  Maps maps({.features = 3}, rng);
  maps.parameters().scale_weight = Matrix<double>(3, 2);
  CHECK(test::code_of([&] { maps.check_sizes(); }) == ErrorCode::shape);
}

TEST_CASE("FeatureModulation has the numbers and the scratch that it says", "[maps]") {
  Rng rng;
  const Index numbers[] = {8'192, 16'384, 139'264, 33'562'624};
  for (std::size_t i = 0; i < 4; ++i) {
    const FeatureModulation<float> maps({.features = 4096, .form = all_forms[i], .rank = 8}, rng);
    CHECK(numbers_of(maps) == numbers[i]);
    const auto bytes = bytes_of([&](Arena& arena) { return maps.scratch({.tokens = 16}, arena); });
    const Index rows = all_forms[i] == low_rank ? 4096 + 8 : 4096;
    CHECK(Index(bytes) == (i < 2 ? 0 : 2 * 16 * rows * 4));
  }
}
