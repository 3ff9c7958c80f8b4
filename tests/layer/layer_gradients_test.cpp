// SPDX-License-Identifier: MIT
// Gradients of whole layers by central differences, whatever the parts; every composition of a gate is in
// compositions_by_*_test.cpp.
#include "mole/layer/check_gradients.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;
using support::random_matrix;

namespace {

/// Reads the latent: the logit of an expert is the sum of its ranks, times a gain that is learnt.
struct SummedLatent {
  using Scalar = double;
  static constexpr Reads reads = Reads::latent;
  struct Parameters {
    Matrix<double> gain;
    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("gain", p.gain...);
    }
  };
  Parameters gains{random_matrix<double>(1, 4, 3)};

  Parameters& parameters() { return gains; }
  const Parameters& parameters() const { return gains; }
  Index outputs() const { return gains.gain.cols(); }
  void forward(View<const double> z, View<double> logits) const {
    const Index ranks = z.cols() / outputs();
    for (Index n = 0; n < z.rows(); ++n)
      for (Index e = 0; e < outputs(); ++e) {
        logits(n, e) = 0;
        for (Index j = 0; j < ranks; ++j) logits(n, e) += gains.gain(0, e) * z(n, e * ranks + j);
      }
  }
  void backward(View<const double> z, View<const double> d_logits, View<double> d_z, Parameters& gradients,
                auto) const {
    const Index ranks = z.cols() / outputs();
    for (Index n = 0; n < z.rows(); ++n)
      for (Index c = 0; c < z.cols(); ++c) {
        gradients.gain(0, c / ranks) += d_logits(n, c / ranks) * z(n, c);
        d_z(n, c) += d_logits(n, c / ranks) * gains.gain(0, c / ranks);
      }
  }
};
static_assert(TrainableRouterPolicy<SummedLatent>);

}  // namespace

TEST_CASE("Identity scores pass the gradient check with every selection and weight", "[layer]") {
  const auto check = [](auto select, auto weigh) {
    auto layer = support::routed_layer<double>({.bias = true}, Gate{Identity{}, select, weigh});
    // Renormalized divides by the sum of the chosen scores: keep it away from 0.
    for (double& bias : layer.router().parameters().bias.elements()) bias = 5;
    const GradientReport report = check_gradients(layer);
    INFO(report.worst_tensor);
    CHECK(report.worst < 1e-8);
    CHECK(report.checked > 100);
  };
  const auto weighs = [&](auto select) {
    check(select, Raw{});
    check(select, Renormalized{});
    check(select, Unit{});
  };
  weighs(All{});
  weighs(TopK{2});
}

TEST_CASE("Every loss passes the gradient check through a whole layer", "[layer]") {
  const std::vector<Index> starts{0, 3};
  const std::vector<std::uint8_t> mask{1, 1, 0, 1, 1, 1, 1};
  const std::vector<int> tasks{1, 0};
  const CheckGradientsOptions options{.pass = {.token_mask = mask, .sequence_begin = starts}};
  auto layer = support::routed_layer<double>({}, Gate{Softmax{}, TopK{2}, Renormalized{}});
  const auto check = [&](auto loss) {
    const GradientReport report = check_gradients(layer, options, loss);
    INFO(report.worst_tensor);
    CHECK(report.worst < 1e-8);
  };
  // First and all choices count tokens: constants, as long as nobody's choice moves.
  for (BalanceCount count : {BalanceCount::all_choices, BalanceCount::first_choice, BalanceCount::gates})
    for (BalanceScope scope : {BalanceScope::global, BalanceScope::sequence})
      check([&](auto& trace) { return load_balance(trace, {.coefficient = 3, .count = count, .scope = scope}); });
  check([](auto& trace) { return router_z(trace, {.coefficient = 0.5}); });
  check([](auto& trace) { return importance_cv2(trace, {.coefficient = 3}); });
  check([](auto& trace) { return router_entropy(trace, {.coefficient = 3}); });
  check([&](auto& trace) { return localized_balance(trace, {.task_types = tasks, .blc_weight = 3}); });
}

TEST_CASE("Every base passes the gradient check, and so does a layer without a router", "[layer]") {
  Rng rng(5);
  const auto check = [&](auto base) {
    const auto experts = [&] {
      return LowRank<DenseFactors<double>>({.in = 11, .out = 13, .experts = 4, .rank = 3, .alpha = 6}, rng);
    };
    auto routed = support::with_random_b(
        MixtureLinear(LinearRouter<double>({.in = 11, .experts = 4}, rng), support::top_2(), experts(), base));
    CHECK(check_gradients(routed).worst < 1e-8);
    auto plain =
        support::with_random_b(MixtureLinear(NoRouter<double>(4), Gate{Identity{}, All{}, Unit{}}, experts(), base));
    CHECK(check_gradients(plain).worst < 1e-8);
  };
  const Matrix<double> weight = random_matrix<double>(13, 11, 1), bias = random_matrix<double>(1, 13, 2);
  check(NoBase<double>(11, 13));
  check(DenseBase(weight.view(), bias.view()));
  check(DenseBase(Matrix<double>(weight), Matrix<double>(bias)));
  const auto squared = [](View<const double> x, View<double> y) {
    for (Index n = 0; n < y.rows(); ++n)
      for (Index o = 0; o < y.cols(); ++o) y(n, o) = x(n, 0) * x(n, o % 11);
  };
  const auto squared_backward = [](View<const double> x, View<const double> d_y, View<double> d_x) {
    for (Index n = 0; n < d_y.rows(); ++n)
      for (Index o = 0; o < d_y.cols(); ++o) {
        d_x(n, 0) += d_y(n, o) * x(n, o % 11);
        d_x(n, o % 11) += d_y(n, o) * x(n, 0);
      }
  };
  check(callable_base<double>(11, 13, squared, squared_backward));
}

TEST_CASE("A router that reads the latent passes the gradient check through both roles", "[layer]") {
  Rng rng(5);
  const double dropout = GENERATE(0.0, 0.3);
  auto layer = support::with_random_b(
      MixtureLinear(SummedLatent{}, Gate{Softmax{}, TopK{2}, Raw{}},
                    LowRank<DenseFactors<double>>(
                        {.in = 11, .out = 13, .experts = 4, .rank = 3, .dropout = {.rate = dropout, .stream = 1}}, rng),
                    DenseBase(random_matrix<double>(13, 11, 6)), Simd<>{}));
  const auto report = check_gradients(layer, {.pass = {.training = true}});
  INFO(report.worst_tensor);
  CHECK(report.worst < 1e-8);
  CHECK(report.checked > 100);
}

TEMPLATE_TEST_CASE("Dropout in the router, in the experts or in both has exact gradients", "[layer]", Reference,
                   Simd<>) {
  for (const auto& [router_rate, experts_rate] : {std::pair(0.3, 0.0), {0.0, 0.3}, {0.3, 0.3}}) {
    Rng rng(5);
    auto layer = support::with_random_b(MixtureLinear(
        LinearRouter<double>({.in = 11, .experts = 4, .bias = true, .dropout = {.rate = router_rate}}, rng),
        support::top_2(),
        LowRank<DenseFactors<double>>(
            {.in = 11, .out = 13, .experts = 4, .rank = 3, .dropout = {.rate = experts_rate, .stream = 1}}, rng),
        DenseBase(random_matrix<double>(13, 11, 6)), TestType{}));
    const auto report = check_gradients(layer, {.pass = {.training = true}});
    CAPTURE(router_rate, experts_rate, report.worst_tensor);
    CHECK(report.worst < 1e-7);
    CHECK(report.checked > 100);
  }
}
