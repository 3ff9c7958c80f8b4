// SPDX-License-Identifier: MIT
#include "mole/optim/sgd.hpp"

#include "support/catch.hpp"
#include "tensors.hpp"

#include <cmath>

namespace {

using namespace mole;
using namespace mole::test;

constexpr double sgd_tolerance = 1e-14;

/// Five steps of `options` against the plain formula; the worst difference.
double difference(const Sgd<double>::Options& options) {
  Tensors<double> parameters = random_tensors<double>(1);
  Tensors<double> expected = parameters, velocity = parameters;
  for (Matrix<double>& u : velocity.values) u.set_zero();
  Sgd<double> sgd(options);
  double worst = 0;
  for (std::uint64_t t = 0; t < 5; ++t) {
    Tensors<double> gradients = random_tensors<double>(100 + t);
    sgd.step(parameters, gradients);
    for (std::size_t i = 0; i < 3; ++i)
      for (Index j = 0; j < expected.values[i].size(); ++j) {
        double &p = expected.values[i].data()[j], &u = velocity.values[i].data()[j];
        const double g = gradients.values[i].data()[j] + options.weight_decay * p;
        u = options.momentum * u + g;
        p -= options.learning_rate * (options.nesterov ? g + options.momentum * u : u);
        worst = std::max(worst, std::abs(p - parameters.values[i].data()[j]));
      }
  }
  return worst;
}

}  // namespace

TEST_CASE("SGD by hand: two steps with momentum", "[optim]") {
  Matrix<float> p(1, 1), d_p(1, 1);
  p(0, 0) = 1;
  d_p(0, 0) = 2;
  Sgd sgd({.learning_rate = 0.25, .momentum = 0.5});
  const auto walk = [&](auto&& f) { f("p", p.view(), d_p.view()); };
  sgd.step(walk);
  CHECK(p(0, 0) == 0.5f);  // u = 2
  sgd.step(walk);
  CHECK(p(0, 0) == -0.25f);  // u = 3
}

TEST_CASE("Nesterov's first step is longer by the momentum", "[optim]") {
  Matrix<float> p(1, 1), d_p(1, 1);
  d_p(0, 0) = 2;
  Sgd sgd({.learning_rate = 0.25, .momentum = 0.5, .nesterov = true});
  sgd.step([&](auto&& f) { f("p", p.view(), d_p.view()); });
  CHECK(p(0, 0) == -0.75f);
}

TEST_CASE("SGD follows its formula over several steps", "[optim]") {
  CHECK(difference({.learning_rate = 0.1}) < sgd_tolerance);
  CHECK(difference({.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.01}) < sgd_tolerance);
  CHECK(difference({.learning_rate = 0.1, .momentum = 0.9, .nesterov = true, .weight_decay = 0.01}) < sgd_tolerance);
}

TEST_CASE("Groups change rate and decay of SGD", "[optim]") {
  Tensors<float> parameters = random_tensors<float>(1), gradients = random_tensors<float>(2);
  const Tensors<float> before = parameters;
  Sgd sgd({.weight_decay = 0.5, .groups = {{.contains = "lora_A", .learning_rate_scale = 0}}});
  sgd.step(parameters, gradients);
  CHECK(equal_bits(parameters.values[1], before.values[1]));
  CHECK_FALSE(equal_bits(parameters.values[2], before.values[2]));
}

TEST_CASE("SGD leaves frozen tensors alone", "[optim]") {
  Tensors<float> parameters = random_tensors<float>(1), gradients = random_tensors<float>(2);
  gradients.values[0] = {};
  const Tensors<float> before = parameters;
  Sgd sgd({.momentum = 0.9, .weight_decay = 0.1});
  sgd.step(parameters, gradients);
  CHECK(equal_bits(parameters.values[0], before.values[0]));
}

TEST_CASE("Restored velocity continues with the same bits", "[optim]") {
  Tensors<float> parameters = random_tensors<float>(1), gradients = random_tensors<float>(2);
  Sgd first({.momentum = 0.9}), second({.momentum = 0.9});
  first.step(parameters, gradients);
  Tensors<float> resumed = parameters;
  second.reserve([&](auto&& f) { resumed.for_each_tensor(f, gradients); });
  std::vector<float> saved;
  first.for_each_state([&](std::string_view, std::span<float> u) { saved.insert(saved.end(), u.begin(), u.end()); });
  auto next = saved.cbegin();
  second.for_each_state([&](std::string_view, std::span<float> u) {
    std::copy_n(next, u.size(), u.begin());
    next += Index(u.size());
  });
  second.set_steps(first.steps());
  first.step(parameters, gradients);
  second.step(resumed, gradients);
  CHECK(equal_bits(parameters, resumed));
}

TEST_CASE("SGD refuses a walk that changes, and options out of range", "[optim]") {
  Tensors<float> parameters = random_tensors<float>(1), gradients = random_tensors<float>(2);
  Sgd sgd;
  sgd.step(parameters, gradients);
  gradients.values[2] = {};
  CHECK(complaint(ErrorCode::shape, [&] { sgd.step(parameters, gradients); }).find("'experts.lora_B'") !=
        std::string::npos);
  for (const Sgd<>::Options& options : {Sgd<>::Options{.learning_rate = -1}, Sgd<>::Options{.momentum = 1},
                                        Sgd<>::Options{.nesterov = true}, Sgd<>::Options{.weight_decay = -1}})
    CHECK(complaint(ErrorCode::option, [&] { Sgd<float> refused(options); }).find("Sgd: expected ") == 0);
}
