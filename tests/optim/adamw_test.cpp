// SPDX-License-Identifier: MIT
#include "mole/optim/adamw.hpp"

#include "support/catch.hpp"
#include "tensors.hpp"

#include <cmath>

namespace {

using namespace mole;
using namespace mole::test;

constexpr double adamw_tolerance = 1e-13;

/// One number through the published formula, in double.
struct PlainAdamW {
  double m = 0, v = 0;
  double operator()(double p, double g, int t, double rate, double decay) {
    m = 0.9 * m + (1 - 0.9) * g;
    v = 0.999 * v + (1 - 0.999) * g * g;
    const double m_hat = m / (1 - std::pow(0.9, t)), v_hat = v / (1 - std::pow(0.999, t));
    return p - rate * (m_hat / (std::sqrt(v_hat) + 1e-8) + decay * p);
  }
};

/// Five steps over all tensors against PlainAdamW, with rate and decay by the tensor's number.
template <class State = double, class Arch = kernel::DefaultArchitecture, class Rate, class Decay>
double difference(typename AdamW<State, Arch>::Options options, Rate rate, Decay decay) {
  Tensors<double> parameters = random_tensors<double>(1);
  AdamW<State, Arch> adamw(std::move(options));
  std::vector<std::vector<PlainAdamW>> plain;
  std::vector<std::vector<double>> expected;
  for (const Matrix<double>& value : parameters.values) {
    plain.emplace_back(std::size_t(value.size()));
    expected.emplace_back(value.elements().begin(), value.elements().end());
  }
  double worst = 0;
  for (int t = 1; t <= 5; ++t) {
    Tensors<double> gradients = random_tensors<double>(std::uint64_t(100 + t));
    adamw.step(parameters, gradients);
    for (std::size_t i = 0; i < expected.size(); ++i)
      for (std::size_t j = 0; j < expected[i].size(); ++j) {
        expected[i][j] = plain[i][j](expected[i][j], gradients.values[i].data()[j], t, rate(i), decay(i));
        worst = std::max(worst, std::abs(expected[i][j] - parameters.values[i].data()[j]));
      }
  }
  return worst;
}

}  // namespace

TEST_CASE("The first step of AdamW is the rate, whatever the gradient's size", "[optim]") {
  for (double g : {1e-3, -2.0, 1e4}) {
    Matrix<double> p(1, 1), d_p(1, 1);
    p(0, 0) = 5;
    d_p(0, 0) = g;
    AdamW<double> adamw({.learning_rate = 0.1, .weight_decay = 0});
    adamw.step([&](auto&& f) { f("p", p.view(), d_p.view()); });
    CHECK(std::abs(p(0, 0) - (5 - 0.1 * g / (std::abs(g) + 1e-8))) < adamw_tolerance);
    CHECK(adamw.steps() == 1);
  }
}

TEST_CASE("Weight decay acts without a gradient, and only by rate times decay", "[optim]") {
  Matrix<double> p(1, 1), d_p(1, 1);
  p(0, 0) = 2;
  AdamW<double> adamw({.learning_rate = 0.1, .weight_decay = 0.5});
  adamw.step([&](auto&& f) { f("p", p.view(), d_p.view()); });
  CHECK(std::abs(p(0, 0) - 2 * (1 - 0.1 * 0.5)) < adamw_tolerance);
}

TEST_CASE("AdamW follows the published formula over several steps", "[optim]") {
  CHECK(difference(
            {.learning_rate = 0.02, .weight_decay = 0.03}, [](std::size_t) { return 0.02; },
            [](std::size_t) { return 0.03; }) < adamw_tolerance);
  CHECK(difference<double, kernel::Scalar>(
            {.learning_rate = 0.02, .weight_decay = 0.03}, [](std::size_t) { return 0.02; },
            [](std::size_t) { return 0.03; }) < adamw_tolerance);
}

TEST_CASE("AdamW follows the formula with parameters of one type and state of another", "[optim]") {
  CHECK(difference<float>(
            {.learning_rate = 0.02, .weight_decay = 0.3}, [](std::size_t) { return 0.02; },
            [](std::size_t) { return 0.3; }) < 1e-7);
  const auto check = [](auto state, auto parameter) {
    using T = decltype(parameter);
    const auto stepped = [&](T p, T gradient, double decay) {
      AdamW<decltype(state)> adamw({.learning_rate = 0.1, .weight_decay = decay});
      adamw.step([&](auto&& f) { f("p", View<T>(&p, 1, 1), View<T>(&gradient, 1, 1)); });
      return double(p);
    };
    CHECK(std::abs(stepped(2, 0, 0.5) - 1.9) < 1e-6);
    CHECK(std::abs(stepped(0, 3, 0) + 0.1) < 1e-6);
  };
  check(float(), double());
  check(double(), float());
  check(float(), float());
}

TEST_CASE("The first group whose text occurs in the name wins", "[optim]") {
  const AdamW<double>::Options options{.learning_rate = 0.02,
                                       .weight_decay = 0.03,
                                       .groups = {{.contains = "lora_B", .learning_rate_scale = 16},
                                                  {.contains = "lora", .weight_decay = 0.0},
                                                  {.contains = "experts", .learning_rate_scale = 100}}};
  const double rates[] = {0.02, 0.02, 0.32}, decays[] = {0.03, 0.0, 0.03};
  CHECK(difference(
            options, [&](std::size_t i) { return rates[i]; }, [&](std::size_t i) { return decays[i]; }) <
        adamw_tolerance);
}

TEST_CASE("Frozen tensors keep their bits and have no state", "[optim]") {
  Tensors<float> parameters = random_tensors<float>(1), gradients = random_tensors<float>(2);
  gradients.values[1] = {};
  const Tensors<float> before = parameters;
  AdamW adamw;
  adamw.step(parameters, gradients);
  CHECK(equal_bits(parameters.values[1], before.values[1]));
  CHECK_FALSE(equal_bits(parameters.values[0], before.values[0]));
  std::vector<std::string> names;
  adamw.for_each_state([&](std::string_view name, std::span<float> first, std::span<float> second) {
    names.emplace_back(name);
    CHECK(first.size() == second.size());
  });
  CHECK(names == std::vector<std::string>{"router.weight", "experts.lora_B"});
}

TEST_CASE("Views with a stride are updated row by row and no further", "[optim]") {
  Matrix<double> wide(3, 4), d_wide(3, 5), dense(3, 2), d_dense(3, 2);
  fill(wide.view(), 7);
  for (Index r = 0; r < 3; ++r)
    for (Index c = 0; c < 2; ++c) {
      wide(r, c) = dense(r, c) = double(r - c);
      d_wide(r, c) = d_dense(r, c) = double(r * c) - 0.5;
    }
  AdamW<double> strided, plain;
  for (int t = 0; t < 3; ++t) {
    strided.step([&](auto&& f) { f("p", View<double>(wide.data(), 3, 2, 4), View<double>(d_wide.data(), 3, 2, 5)); });
    plain.step([&](auto&& f) { f("p", dense.view(), d_dense.view()); });
  }
  for (Index r = 0; r < 3; ++r) {
    for (Index c = 0; c < 2; ++c) CHECK(wide(r, c) == dense(r, c));
    for (Index c = 2; c < 4; ++c) CHECK(wide(r, c) == 7);
  }
}

TEST_CASE("Moments far below the resolution of the parameters accumulate in float", "[optim]") {
  // Gradients of 1e-12: g^2 = 1e-24 is a normal float, and the moments must approach g and g^2.
  Matrix<float> p(1, 8), d_p(1, 8);
  fill(p.view(), 1);
  fill(d_p.view(), 1e-12f);
  AdamW adamw({.learning_rate = 0, .weight_decay = 0});
  for (int t = 0; t < 2000; ++t) adamw.step([&](auto&& f) { f("p", p.view(), d_p.view()); });
  adamw.for_each_state([&](std::string_view, std::span<float> first, std::span<float> second) {
    const double mean = 1 - std::pow(0.9, 2000), square = 1 - std::pow(0.999, 2000);
    CHECK(std::abs(double(first[7]) / 1e-12 - mean) < 1e-5);
    CHECK(std::abs(double(second[7]) / 1e-24 - square) < 1e-4);
  });
  CHECK(p(0, 3) == 1.0f);
}

TEST_CASE("Restored state continues with the same bits", "[optim]") {
  Tensors<float> parameters = random_tensors<float>(1);
  AdamW first({.learning_rate = 0.01});
  for (std::uint64_t t = 0; t < 3; ++t) {
    Tensors<float> gradients = random_tensors<float>(10 + t);
    first.step(parameters, gradients);
  }
  std::vector<std::vector<float>> saved;
  first.for_each_state([&](std::string_view, std::span<float> m, std::span<float> v) {
    saved.emplace_back(m.begin(), m.end());
    saved.emplace_back(v.begin(), v.end());
  });

  Tensors<float> resumed = parameters, gradients = random_tensors<float>(20);
  AdamW second({.learning_rate = 0.01});
  second.reserve([&](auto&& f) { resumed.for_each_tensor(f, gradients); });
  std::size_t next = 0;
  second.for_each_state([&](std::string_view, std::span<float> m, std::span<float> v) {
    std::copy(saved[next].begin(), saved[next].end(), m.begin());
    std::copy(saved[next + 1].begin(), saved[next + 1].end(), v.begin());
    next += 2;
  });
  second.set_steps(first.steps());
  first.step(parameters, gradients);
  second.step(resumed, gradients);
  CHECK(equal_bits(parameters, resumed));
  CHECK(second.steps() == 4);
}

TEST_CASE("A learning rate can change between steps", "[optim]") {
  Tensors<float> parameters = random_tensors<float>(1), gradients = random_tensors<float>(2);
  AdamW adamw({.weight_decay = 0.5});
  adamw.set_learning_rate(0);
  const Tensors<float> before = parameters;
  adamw.step(parameters, gradients);
  CHECK(equal_bits(parameters, before));
  CHECK(adamw.learning_rate() == 0);
}

TEST_CASE("A walk that changes between steps is refused, by name, before anything is updated", "[optim]") {
  Tensors<float> parameters = random_tensors<float>(1), gradients = random_tensors<float>(2);
  AdamW adamw;
  adamw.step(parameters, gradients);
  const Tensors<float> before = parameters;
  const auto refused = [&] { return complaint(ErrorCode::shape, [&] { adamw.step(parameters, gradients); }); };
  SECTION("a tensor vanishes") {
    gradients.values[2] = {};
    CHECK(refused() == "optimizer: expected 'experts.lora_B' as at the first step, found the end of the walk");
  }
  SECTION("a tensor vanishes in the middle") {
    gradients.values[1] = {};
    CHECK(refused() == "optimizer: expected 'experts.lora_A' as at the first step, found 'experts.lora_B'");
  }
  SECTION("a tensor appears") {
    parameters.names.push_back("base.weight");
    parameters.values.emplace_back(1, 1);
    gradients.values.emplace_back(1, 1);
    CHECK(refused() == "optimizer: expected no trained tensor after the first step's, found 'base.weight'");
    parameters.values.pop_back();
  }
  SECTION("a tensor changes its size") {
    gradients.values[1] = Matrix<float>(4, 6);
    parameters.values[1] = Matrix<float>(4, 6);
    CHECK(refused() == "optimizer: expected 20 elements of 'experts.lora_A', found 24");
    parameters.values[1] = before.values[1];
  }
  SECTION("a gradient has another shape") {
    gradients.values[1] = Matrix<float>(5, 4);
    CHECK(refused() == "optimizer: expected a gradient of the shape of 'experts.lora_A', found 5 x 4");
  }
  CHECK(equal_bits(parameters, before));
  CHECK(adamw.steps() == 1);
}

TEST_CASE("Options out of range are refused", "[optim]") {
  for (const AdamW<>::Options& options :
       {AdamW<>::Options{.learning_rate = -1}, AdamW<>::Options{.beta1 = 1}, AdamW<>::Options{.beta2 = -0.1},
        AdamW<>::Options{.epsilon = 0}, AdamW<>::Options{.weight_decay = std::nan("")}})
    CHECK(complaint(ErrorCode::option, [&] { AdamW<float> adamw(options); }).find("AdamW: expected ") == 0);
}

TEST_CASE("An epsilon on the raw root is the corrected one's, larger by that correction", "[optim]") {
  Tensors<double> raw = random_tensors<double>(1), corrected = raw, gradients = random_tensors<double>(2);
  AdamW<double> on_raw({.epsilon = 1e-2, .epsilon_on_raw = true});
  on_raw.step(raw, gradients);
  AdamW<double>({.epsilon = 1e-2 / std::sqrt(1 - 0.999)}).step(corrected, gradients);
  CHECK(equal_bits(raw, corrected));
  on_raw.step(raw, gradients);
  CHECK_FALSE(equal_bits(raw, corrected));
}
