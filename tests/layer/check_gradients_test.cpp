// SPDX-License-Identifier: MIT
#include "mole/layer/check_gradients.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;

namespace {

/// Raw, with a backward that forgets a factor.
struct WrongWeigh : Raw {
  template <class T>
  void backward(std::span<const T>, std::span<const int> chosen, std::span<const T>, std::span<const T> d_gates,
                std::span<T> d_scores) const {
    for (std::size_t j = 0; j < chosen.size(); ++j) d_scores[std::size_t(chosen[j])] += T(0.9) * d_gates[j];
  }
};

/// Products whose gradient of w is right but for one element.
struct WrongProduct : Reference {
  template <class T>
  void product_tn(ConstView<T> d_y, ConstView<T> x, View<T> d_w) const {
    Reference::product_tn(d_y, x, d_w);
    if (d_w) d_w(d_w.rows() - 1, d_w.cols() - 1) += T(1e-3);
  }
};

/// Adds a wrong number, times `size`, at one of many places of a backward.
struct Spoiled {
  int place;
  double size;

  template <class T>
  void spoil(View<T> gradient, int here) const {
    if (place == here && gradient && gradient.size() > 0) gradient(gradient.rows() - 1, 0) += T(size);
  }
};

/// Reference, one of whose primitives is wrong in backward.
struct SpoiledExecution : Reference {
  Spoiled spoiled;

  template <class T>
  void product_nn(ConstView<T> d_y, ConstView<T> w, View<T> d_x) const {
    Reference::product_nn(d_y, w, d_x);
    spoiled.spoil(d_x, 0);
  }
  template <class T>
  void product_tn(ConstView<T> d_y, ConstView<T> x, View<T> d_w) const {
    Reference::product_tn(d_y, x, d_w);
    spoiled.spoil(d_w, 1);
  }
  template <class T, class... Terms>
  void linear_backward(ConstView<T> d_y, const LinearWeights<T>& w, View<T> d_x, const Terms&... terms) const {
    Reference::linear_backward(d_y, w, d_x, terms...);
    spoiled.spoil(d_x, 2);
  }
  template <class T>
  void routed_outer(std::span<const std::type_identity_t<T>> h, ConstView<T> x, FactorSide side,
                    const RankLayout<T>& layout, View<T> d_table) const {
    Reference::routed_outer(h, x, side, layout, d_table);
    spoiled.spoil(d_table, side == FactorSide::up ? 3 : 4);
  }
};

/// A router whose backward adds nonsense to the gradient of its weight, or of x.
struct SpoiledRouter : LinearRouter<double> {
  using LinearRouter<double>::LinearRouter;
  Spoiled spoiled{};
  bool fuses_d_x(const Pass&) const { return false; }

  void backward(View<const double> x, View<const double> d_logits, View<double> d_x, Parameters& gradients,
                auto call) const {
    LinearRouter<double>::backward(x, d_logits, d_x, gradients, call);
    spoiled.spoil(gradients.weight.view(), 5);
    spoiled.spoil(d_x, 6);
  }
};

/// A layer as it is fresh: B = 0.
auto fresh_layer(Spoiled spoiled) {
  Rng rng(5);
  SpoiledRouter router({.in = 6, .experts = 4}, rng);
  router.spoiled = spoiled;
  return MixtureLinear(router, support::top_2(),
                       LowRank<DenseFactors<double>>({.in = 6, .out = 7, .experts = 4, .rank = 2}, rng),
                       DenseBase(support::random_matrix<double>(7, 6, 6)), SpoiledExecution{{}, spoiled});
}

}  // namespace

TEST_CASE("check_gradients finds wrong gradients of every size, at every place of a fresh layer", "[layer]") {
  auto right = fresh_layer({-1, 0});
  const GradientReport report = check_gradients(right, {.tokens = 3});
  CHECK(report.worst < 1e-7);
  CHECK(report.randomized == std::vector<std::string>{"experts.lora_B"});
  int found = 0;
  for (int place = 0; place <= 6; ++place)
    for (double size : {1e-3, -1.0, 1e3}) {
      auto layer = fresh_layer({place, size});
      CAPTURE(place, size);
      const double worst = check_gradients(layer, {.tokens = 3}).worst;
      CHECK(worst > 1e-5);
      CHECK(worst <= 2);  // against the larger of the two gradients
      ++found;
    }
  CHECK(found == 21);
}

TEST_CASE("check_gradients finds a gradient that is NaN or infinite", "[layer]") {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  for (double size : {std::numeric_limits<double>::quiet_NaN(), infinity, -infinity}) {
    auto layer = fresh_layer({5, size});
    const GradientReport report = check_gradients(layer, {.tokens = 3});
    CHECK(report.worst == infinity);
    CHECK(report.worst_tensor == "router.weight");
  }
}

TEST_CASE("check_gradients names what rounding hides, and does not pass it", "[layer]") {
  const auto report_of = [](double of_b, double of_base, double loss, double step) {
    auto layer = fresh_layer({-1, 0});
    layer.for_each_tensor([&](std::string_view name, View<double> parameter) {
      Rng rng(1);
      if (name == "experts.lora_B") fill_uniform(parameter, of_b, rng);
    });
    for (double& w : layer.base().parameters().weight.elements()) w *= of_base;
    return check_gradients(layer, {.tokens = 3, .step = step}, [&](const auto&) { return loss; });
  };
  CHECK(report_of(1, 1, 0, 1e-5).passed(1e-7));
  CHECK_FALSE(report_of(1e-9, 1, 0, 1e-5).passed(1e-7));
  CHECK_FALSE(report_of(1, 1e12, 0, 1e-5).passed(1e-7));
  CHECK_FALSE(report_of(1, 1, 1e12, 1e-5).passed(1e-7));
  CHECK_FALSE(report_of(1, 1, 0, 1e-15).passed(1e-7));
  CHECK(report_of(1e-9, 1, 0, 1e-5).unseen == std::vector<std::string>{"router.weight", "experts.lora_A"});
  auto of_floats = support::routed_layer<float>({}, support::top_2());
  CHECK_FALSE(check_gradients(of_floats).passed(1e-7));
}

TEST_CASE("check_gradients refuses to check nothing", "[layer]") {
  auto layer = fresh_layer({-1, 0});
  CHECK(test::code_of([&] { check_gradients(layer, {.tokens = 0}); }) == ErrorCode::option);
  CHECK(test::code_of([&] { check_gradients(layer, {.step = 0}); }) == ErrorCode::option);
}

TEST_CASE("check_gradients leaves out a number where one of its two steps changes who is chosen", "[layer]") {
  auto layer = support::routed_layer<double>({}, Gate{Softmax{}, TopK{1}, Raw{}});
  Matrix<double>& weight = layer.router().parameters().weight;
  std::ranges::copy(weight.view().row(0), weight.view().row(1).begin());  // experts 0 and 1 tie in every token
  const GradientReport report = check_gradients(layer);
  CHECK(report.moved > 0);
  CHECK(report.worst < 1e-7);
}

TEST_CASE("check_gradients leaves out no number where the chosen only change their order", "[layer]") {
  auto layer = support::routed_layer<double>({}, Gate{Softmax{}, TopK{4}, Raw{}});
  Matrix<double>& weight = layer.router().parameters().weight;
  std::ranges::copy(weight.view().row(0), weight.view().row(1).begin());
  CHECK(check_gradients(layer).moved == 0);
}

TEST_CASE("check_gradients takes no rounding for an error, whatever the sign of the sum that it differentiates",
          "[layer]") {
  auto layer = support::routed_layer<double>({}, support::top_2());
  for (double& w : layer.base().parameters().weight.elements()) w *= 1e6;
  for (std::uint64_t seed : {1u, 2u, 3u, 4u, 5u, 6u}) {
    CAPTURE(seed);
    CHECK(check_gradients(layer, {.tokens = 3, .seed = seed}).worst < 1e-7);
  }
}

TEST_CASE("check_gradients measures against the gradient, however small it is", "[layer]") {
  auto layer = fresh_layer({5, -1e-6});
  auto& b = layer.experts().parameters().lora_B;
  for (double& number : b.elements()) number = 1e-9;  // the router's gradient is as small
  CHECK(check_gradients(layer, {.tokens = 3}).worst > 0.1);
}

TEST_CASE("check_gradients leaves the layer as it was, also where the loss throws", "[layer]") {
  auto layer = fresh_layer({-1, 0});
  const Matrix<double> a = layer.experts().parameters().lora_A, b = layer.experts().parameters().lora_B;
  int calls = 0;
  const auto loss = [&](auto&) -> double {
    if (++calls == 30) throw std::runtime_error("lost");
    return 0;
  };
  CHECK_THROWS_AS(check_gradients(layer, {.tokens = 3}, loss), std::runtime_error);
  CHECK(support::same_bits(a, layer.experts().parameters().lora_A));
  CHECK(support::same_bits(b, layer.experts().parameters().lora_B));
}

TEST_CASE("check_gradients passes a right gradient and leaves the layer as it was", "[layer]") {
  auto layer = support::routed_layer<double>({}, support::top_2());
  const auto before = layer.experts().parameters().lora_A;
  const GradientReport report = check_gradients(layer);
  CHECK(report.worst < 1e-8);
  CHECK(report.checked + report.moved == 7 * 11 + 4 * 11 + 12 * 11 + 12 * 13 + 13 * 11);
  CHECK(support::same_bits(before, layer.experts().parameters().lora_A));
}

TEST_CASE("check_gradients fails on a wrong gradient and names the tensor", "[layer]") {
  auto wrong_gate = support::routed_layer<double>({}, Gate{Softmax{}, TopK{2}, WrongWeigh{}});
  CHECK(check_gradients(wrong_gate).worst > 1e-3);
  auto wrong_element = support::routed_layer<double>({}, support::top_2(), WrongProduct{});
  const GradientReport report = check_gradients(wrong_element);
  CHECK(report.worst > 1e-5);
  CHECK((report.worst_tensor == "router.weight" || report.worst_tensor == "base.weight"));
}

TEST_CASE("check_gradients fails on a loss whose gradient is missing", "[layer]") {
  auto layer = support::routed_layer<double>({}, support::top_2());
  const auto report = check_gradients(layer, {}, [](auto& trace) {
    double sum = 0;
    for (Index n = 0; n < trace.tokens(); ++n) sum += trace.logits()(n, 0);
    return sum;
  });
  CHECK(report.worst > 1e-3);
}
