// SPDX-License-Identifier: MIT
#include "mole/layer/mixture_linear.hpp"

#include "mole/execution/through_eigen.hpp"
#include "mole/layer/check_gradients.hpp"
#include "mole/loss/load_balance.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <memory_resource>
#include <thread>

using namespace mole;
using support::random_matrix;
using support::same_bits;

namespace {

template <class Layer>
Matrix<typename Layer::Scalar> output(const Layer& layer, const Matrix<typename Layer::Scalar>& x,
                                      const Batch& batch = {}) {
  Matrix<typename Layer::Scalar> y(x.rows(), layer.out());
  auto work = layer.workspace(x.rows());
  layer.forward(x, y, work, batch);
  return y;
}

template <class F>
ErrorCode code_of(F f) {
  try {
    f();
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode{};
}

/// Reads the latent: the logit of an expert is the sum of its ranks, times a gain that is learnt.
struct SummedLatent {
  using Scalar = double;
  static constexpr Reads reads = Reads::latent;
  struct Parameters {
    Matrix<double> gain;
    template <class F, class... P>
    static void walk(F&& f, P&... p) {
      f("gain", p.gain...);
    }
  };
  Parameters gains{random_matrix<double>(1, 4, 3)};

  Parameters& parameters() { return gains; }
  const Parameters& parameters() const { return gains; }
  Index outputs() const { return gains.gain.cols(); }
  void score(View<const double> z, View<double> logits) const {
    const Index ranks = z.cols() / outputs();
    for (Index n = 0; n < z.rows(); ++n)
      for (Index e = 0; e < outputs(); ++e) {
        logits(n, e) = 0;
        for (Index j = 0; j < ranks; ++j) logits(n, e) += gains.gain(0, e) * z(n, e * ranks + j);
      }
  }
  void backward(View<const double> z, View<const double> d_logits, View<double> d_z, Parameters& gradients,
                auto&) const {
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

TEMPLATE_TEST_CASE("One expert and no router are a plain LoRA, bit for bit", "[layer]", Reference, Simd<>,
                   ThroughEigen) {
  Rng rng(1);
  const Matrix<float> weight = random_matrix<float>(13, 11, 2), x = random_matrix<float>(70, 11, 3);
  LowRank<DenseFactors<float>> lora({.in = 11, .out = 13, .rank = 5, .alpha = 10}, rng);
  fill_uniform(lora.parameters().lora_B.view(), 1, rng);
  const MixtureLinear layer(NoRouter<float>(), Gate{Softmax{}, TopK{1}, Renormalised{}}, lora, DenseBase(weight.view()),
                            TestType{});

  // y = W x + s B (A x), from the same primitives, as a host without a mixture would write it.
  const TestType execution{};
  Matrix<float> plain(70, 13);
  execution.product_nt(x, weight, plain.view());
  Routing<float> everyone;
  everyone.start(1);
  for (Index n = 0; n < 70; ++n) {
    everyone.push(0, 1);
    everyone.end_token();
  }
  everyone.finish();
  std::vector<int> begin;
  for (int n = 0; n <= 70; ++n) begin.push_back(5 * n);
  const RankLayout<float> ranks{lora.blocks(), everyone, begin};
  std::vector<float> h(70 * 5);
  execution.routed_down(x, lora.parameters().lora_A, Side::down, ranks, std::span<float>(h));
  for (float& number : h) number *= lora.scale()[0];
  execution.routed_up(RankTerms<float>{ranks, h, lora.parameters().lora_B, Side::up}, plain.view());
  CHECK(same_bits(output(layer, x), plain));
}

TEST_CASE("Under Reference a layer of one expert is the loop of a plain LoRA, bit for bit", "[layer]") {
  Rng rng(1);
  const Matrix<double> weight = random_matrix<double>(6, 5, 2), x = random_matrix<double>(9, 5, 3);
  LowRank<DenseFactors<double>> lora({.in = 5, .out = 6, .rank = 3, .alpha = 12}, rng);
  fill_uniform(lora.parameters().lora_B.view(), 1, rng);
  const MixtureLinear layer(NoRouter<double>(), Gate{Identity{}, All{}, Unit{}}, lora, DenseBase(weight.view()),
                            Reference{});
  const auto& p = lora.parameters();
  Matrix<double> y(9, 6);
  for (Index n = 0; n < 9; ++n) {
    for (Index o = 0; o < 6; ++o)
      for (Index i = 0; i < 5; ++i) y(n, o) += x(n, i) * weight(o, i);
    for (Index j = 0; j < 3; ++j) {
      double h = 0;
      for (Index i = 0; i < 5; ++i) h += p.lora_A(j, i) * x(n, i);
      for (Index o = 0; o < 6; ++o) y(n, o) += 4 * h * p.lora_B(j, o);
    }
  }
  CHECK(same_bits(output(layer, x), y));
}

TEMPLATE_TEST_CASE("A layer whose B is zero gives its base's output bit for bit", "[layer]", Reference, Simd<>,
                   ThroughEigen) {
  Rng rng(1);
  const Matrix<float> weight = random_matrix<float>(33, 20, 2);
  const TestType execution{};
  for (Index tokens : {1, 7, 64, 130}) {
    const Matrix<float> x = random_matrix<float>(tokens, 20, 3);
    const MixtureLinear layer(LinearRouter<float>({.in = 20, .experts = 4}, rng), support::top_2(),
                              LowRank<DenseFactors<float>>({.in = 20, .out = 33, .experts = 4, .rank = 3}, rng),
                              DenseBase(weight.view()), execution);
    Matrix<float> base(tokens, 33);
    execution.product_nt(x, weight, base.view());
    CHECK(same_bits(output(layer, x), base));
  }
}

TEST_CASE("Every composition passes the gradient check", "[layer]") {
  const Batch training{.training = true, .seed = 3, .layer = 2, .step = 5};
  const auto check = [&](auto layer) {
    const GradientReport report = check_gradients(layer, {.batch = training}, [](auto& trace) {
      return load_balance(trace, {.coefficient = 0.3, .count = BalanceCount::weights});
    });
    INFO(report.worst_tensor << " " << report.worst);
    CHECK(report.worst < 1e-8);
    CHECK(report.checked > 100);
    CHECK(report.moved * 20 < report.checked);
  };
  const auto scores = [&]<class Execution>(Execution execution, const support::LayerSizes& sizes) {
    const auto weighs = [&](auto score, auto select) {
      check(support::routed_layer<double>(sizes, Gate{score, select, Raw{}}, execution));
      check(support::routed_layer<double>(sizes, Gate{score, select, Renormalised{}}, execution));
      check(support::routed_layer<double>(sizes, Gate{score, select, Unit{}}, execution));
    };
    const auto selects = [&](auto score) {
      weighs(score, All{});
      weighs(score, TopK{2});
    };
    selects(Softmax{0.7});
    selects(Sigmoid{});
  };
  SECTION("Reference") {
    scores(Reference{}, {});
  }
  SECTION("Simd, dropout, bias") {
    scores(Simd<>{}, {.dropout = 0.3, .bias = true});
  }
  SECTION("ThroughEigen, ragged") {
    scores(ThroughEigen{}, {.ranks = {1, 5, 2, 8}});
  }
  SECTION("Simd, shared down-projection") {
    scores(Simd<>{}, {.shared_down = true});
  }
  SECTION("Simd, rank-wise") {
    scores(Simd<>{}, {.experts = 12, .rank = 1});
  }
}

TEST_CASE("Identity scores pass the gradient check with every selection and weight", "[layer]") {
  const auto check = [](auto select, auto weigh) {
    auto layer = support::routed_layer<double>({.bias = true}, Gate{Identity{}, select, weigh});
    // Renormalised divides by the sum of the chosen scores: keep it away from 0.
    for (double& bias : layer.router().parameters().bias.elements()) bias = 5;
    const GradientReport report = check_gradients(layer);
    INFO(report.worst_tensor);
    CHECK(report.worst < 1e-8);
    CHECK(report.checked > 100);
  };
  const auto weighs = [&](auto select) {
    check(select, Raw{});
    check(select, Renormalised{});
    check(select, Unit{});
  };
  weighs(All{});
  weighs(TopK{2});
}

TEST_CASE("Every loss passes the gradient check through a whole layer", "[layer]") {
  const std::vector<Index> starts{0, 3};
  const std::vector<std::uint8_t> mask{1, 1, 0, 1, 1, 1, 1};
  const std::vector<int> tasks{1, 0};
  const GradientCheck options{.batch = {.token_mask = mask, .sequence_begin = starts}};
  auto layer = support::routed_layer<double>({}, Gate{Softmax{}, TopK{2}, Renormalised{}});
  const auto check = [&](auto loss) {
    const GradientReport report = check_gradients(layer, options, loss);
    INFO(report.worst_tensor);
    CHECK(report.worst < 1e-8);
  };
  // First and all choices count tokens: constants, as long as nobody's choice moves.
  for (BalanceCount count : {BalanceCount::all_choices, BalanceCount::first_choice, BalanceCount::weights})
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
  const auto report = check_gradients(layer, {.batch = {.training = true}});
  INFO(report.worst_tensor);
  CHECK(report.worst < 1e-8);
  CHECK(report.checked > 100);
}

TEMPLATE_TEST_CASE("Executions agree with Reference in output and every gradient", "[layer]", float, double) {
  using T = TestType;
  const auto run = [](auto layer, Index tokens) {
    const auto x = random_matrix<T>(tokens, layer.in(), 8), d_y = random_matrix<T>(tokens, layer.out(), 9);
    Matrix<T> y(tokens, layer.out()), d_x(tokens, layer.in());
    auto work = layer.workspace(tokens);
    auto gradients = layer.gradients({.router = true, .experts = true, .base = true});
    layer.forward(x, y, work, {.training = true, .seed = 1});
    layer.backward(x, d_y, d_x, gradients, work);
    std::vector<Matrix<T>> all{y, d_x};
    layer.walk(
        [&](std::string_view, View<T>, View<T> gradient) {
          Matrix<T> copy(gradient.rows(), gradient.cols());
          for (Index r = 0; r < copy.rows(); ++r)
            std::copy_n(gradient.row_data(r), copy.cols(), copy.view().row_data(r));
          all.push_back(copy);
        },
        gradients);
    return all;
  };
  const support::LayerSizes sizes =
      GENERATE(support::LayerSizes{}, support::LayerSizes{.in = 50, .out = 70, .experts = 8, .rank = 17, .bias = true},
               support::LayerSizes{.in = 33, .out = 34, .experts = 5, .dropout = 0.4, .ranks = {1, 9, 3, 17, 2}},
               support::LayerSizes{.in = 40, .out = 24, .experts = 64, .rank = 1},
               support::LayerSizes{.experts = 4, .rank = 8, .shared_down = true});
  for (Index tokens : {1, 7, 100}) {
    const auto expected = run(support::routed_layer<T>(sizes, support::top_2(), Reference{}), tokens);
    const auto compare = [&](const auto& found) {
      for (std::size_t i = 0; i < expected.size(); ++i) {
        double most = 1;
        for (T value : expected[i].elements()) most = std::max(most, std::abs(double(value)));
        CHECK(support::largest_difference(expected[i], found[i]) <
              100 * double(std::numeric_limits<T>::epsilon()) * most);
      }
    };
    compare(run(support::routed_layer<T>(sizes, support::top_2(), Simd<>{}), tokens));
    compare(run(support::routed_layer<T>(sizes, support::top_2(), Simd<kernel::Scalar>{}), tokens));
    compare(run(support::routed_layer<T>(sizes, support::top_2(), ThroughEigen{}), tokens));
  }
}

TEST_CASE("A layer gives the same bits on 1, 2 and 5 threads", "[layer][threads]") {
  const auto run = [](int threads) {
    auto layer = support::routed_layer<float>({.in = 100, .out = 120, .experts = 8, .rank = 8, .dropout = 0.1},
                                              support::top_2(), Simd{ThreadPool{threads}});
    const auto x = random_matrix<float>(700, 100, 8), d_y = random_matrix<float>(700, 120, 9);
    Matrix<float> y(700, 120), d_x(700, 100);
    auto work = layer.workspace(700);
    auto gradients = layer.gradients({.base = true});
    layer.forward(x, y, work, {.training = true});
    layer.backward(x, d_y, d_x, gradients, work);
    return std::vector<Matrix<float>>{
        y, d_x, gradients.router.weight, gradients.experts.lora_A, gradients.experts.lora_B, gradients.base.weight};
  };
  const auto one = run(1);
  for (int threads : {2, 5}) {
    const auto many = run(threads);
    for (std::size_t i = 0; i < one.size(); ++i) CHECK(same_bits(one[i], many[i]));
  }
}

TEST_CASE("Threads may share one layer, each with a workspace of its own", "[layer][threads]") {
  const auto layer = support::routed_layer<float>({}, support::top_2(), Simd<>{});
  const auto x = random_matrix<float>(64, 11, 8);
  const auto expected = output(layer, x);
  std::vector<Matrix<float>> found(4);
  std::vector<std::thread> threads;
  for (auto& y : found) threads.emplace_back([&] { y = output(layer, x); });
  for (auto& thread : threads) thread.join();
  for (const auto& y : found) CHECK(same_bits(y, expected));
}

TEST_CASE("Frozen parts cost no gradient and change no other", "[layer]") {
  auto layer = support::routed_layer<double>({}, support::top_2());
  const auto x = random_matrix<double>(7, 11, 8), d_y = random_matrix<double>(7, 13, 9);
  const auto gradients_of = [&](Trainable trainable) {
    Matrix<double> y(7, 13), d_x(7, 11);
    auto work = layer.workspace(7);
    auto gradients = layer.gradients(trainable);
    layer.forward(x, y, work);
    layer.backward(x, d_y, d_x, gradients, work);
    return std::pair{gradients, d_x};
  };
  const auto [all, d_x] = gradients_of({.router = true, .experts = true, .base = true});
  for (int frozen = 0; frozen < 8; ++frozen) {
    const Trainable trainable{.router = (frozen & 1) == 0, .experts = (frozen & 2) == 0, .base = (frozen & 4) == 0};
    const auto [some, d_x_some] = gradients_of(trainable);
    CHECK(same_bits(d_x, d_x_some));
    CHECK(same_bits(some.router.weight, trainable.router ? all.router.weight : Matrix<double>{}));
    CHECK(same_bits(some.experts.lora_A, trainable.experts ? all.experts.lora_A : Matrix<double>{}));
    CHECK(same_bits(some.experts.lora_B, trainable.experts ? all.experts.lora_B : Matrix<double>{}));
    CHECK(same_bits(some.base.weight, trainable.base ? all.base.weight : Matrix<double>{}));
  }
}

TEST_CASE("A single tensor can be frozen by emptying its gradient", "[layer]") {
  auto layer = support::routed_layer<double>({}, support::top_2());
  const auto x = random_matrix<double>(7, 11, 8), d_y = random_matrix<double>(7, 13, 9);
  Matrix<double> y(7, 13);
  auto work = layer.workspace(7);
  auto gradients = layer.gradients();
  gradients.experts.lora_A = {};
  layer.forward(x, y, work);
  layer.backward(x, d_y, View<double>{}, gradients, work);
  CHECK(gradients.experts.lora_A.empty());
  CHECK(any_wanted(gradients.experts));
  CHECK_FALSE(same_bits(gradients.experts.lora_B, Matrix<double>(12, 13)));
}

TEST_CASE("A routing from outside returns the gradient of its weights", "[layer]") {
  Rng rng(5);
  auto layer = support::with_random_b(
      MixtureLinear(External{}, NoGating{},
                    LowRank<DenseFactors<double>>({.in = 11, .out = 13, .experts = 4, .rank = 3, .alpha = 6}, rng),
                    DenseBase(random_matrix<double>(13, 11, 6))));
  STATIC_REQUIRE(decltype(layer)::external);
  Matrix<double> weights = random_matrix<double>(7, 4, 1);
  const auto x = random_matrix<double>(7, 11, 8), d_y = random_matrix<double>(7, 13, 9);
  Matrix<double> y(7, 13), d_x(7, 11);
  auto work = layer.workspace(7);
  auto gradients = layer.gradients();
  const auto routing = Routing<double>::from_dense(weights);
  std::vector<double> d_weight(std::size_t(routing.pairs()), 1.0);  // accumulated
  layer.apply(x, routing, y, work);
  layer.apply_backward(x, routing, d_y, d_weight, d_x, gradients, work);
  const auto value = [&] {
    layer.apply(x, Routing<double>::from_dense(weights), y, work);
    double sum = 0;
    for (std::size_t i = 0; i < y.elements().size(); ++i) sum += y.elements()[i] * d_y.elements()[i];
    return sum;
  };
  for (std::size_t p = 0; p < d_weight.size(); ++p) {
    double& weight = weights.elements()[p];
    const double before = weight;
    weight = before + 1e-6;
    const double above = value();
    weight = before - 1e-6;
    const double below = value();
    weight = before;
    CHECK(std::abs((above - below) / 2e-6 - (d_weight[p] - 1)) < 1e-7);
  }
}

TEST_CASE("One routing serves two layers, whose weight gradients add up", "[layer]") {
  auto q = support::routed_layer<double>({}, support::top_2());
  const auto k = support::with_random_b(q, 99);
  const auto x = random_matrix<double>(7, 11, 8), d_y = random_matrix<double>(7, 13, 9);
  Matrix<double> y(7, 13);
  auto work = q.workspace(7), work_k = k.workspace(7), work_alone = k.workspace(7);
  auto gradients = q.gradients(), gradients_k = k.gradients();
  q.route(x, work);
  q.apply(x, work.routing, y, work);
  k.apply(x, work.routing, y, work_k);
  q.apply_backward(x, work.routing, d_y, work.d_weight(), View<double>{}, gradients, work);
  std::vector<double> of_q(work.d_weight().begin(), work.d_weight().end()), of_k(of_q.size());
  k.apply(x, work.routing, y, work_alone);
  k.apply_backward(x, work.routing, d_y, of_k, View<double>{}, gradients_k, work_alone);
  k.apply_backward(x, work.routing, d_y, work.d_weight(), View<double>{}, gradients_k, work_k);
  for (std::size_t p = 0; p < of_q.size(); ++p) CHECK(std::abs(work.d_weight()[p] - of_q[p] - of_k[p]) < 1e-12);
}

TEST_CASE("A layer merges when its gate is the same for all tokens, and says why when not", "[layer]") {
  Rng rng(5);
  const Matrix<double> weight = random_matrix<double>(13, 11, 6);
  const auto experts = [&] {
    return LowRank<DenseFactors<double>>({.in = 11, .out = 13, .experts = 3, .rank = 2, .alpha = 4}, rng);
  };
  const auto layer = support::with_random_b(MixtureLinear(NoRouter<double>(3), Gate{Identity{}, All{}, Unit{}},
                                                          experts(), DenseBase(weight.view()), Reference{}));
  CHECK(layer.merge_obstacle().empty());
  Matrix<double> merged = weight;
  layer.merge_into(merged);
  const auto x = random_matrix<double>(9, 11, 8);
  Matrix<double> y(9, 13);
  Reference{}.product_nt(x, merged, y.view());
  CHECK(support::largest_difference(y, output(layer, x)) < 1e-13);

  const auto routed = support::routed_layer<double>({}, support::top_2());
  Matrix<double> untouched = weight;
  CHECK(code_of([&] { routed.merge_into(untouched); }) == ErrorCode::not_mergeable);
  CHECK(same_bits(untouched, weight));
  CHECK(routed.merge_obstacle().find("every token") != std::string::npos);
  Matrix<double> wrong(12, 11);
  CHECK(code_of([&] { layer.merge_into(wrong); }) == ErrorCode::shape);
}

TEST_CASE("Roles that do not fit each other are refused at construction", "[layer]") {
  Rng rng(5);
  const auto make = [&](Index router_in, Index router_experts, Index k, Index base_in, Index base_out) {
    return code_of([&] {
      MixtureLinear(LinearRouter<float>({.in = router_in, .experts = router_experts}, rng),
                    Gate{Softmax{}, TopK{k}, Raw{}},
                    LowRank<DenseFactors<float>>({.in = 11, .out = 13, .experts = 4}, rng),
                    DenseBase(Matrix<float>(base_out, base_in)));
    });
  };
  CHECK(make(11, 4, 2, 11, 13) == ErrorCode{});
  CHECK(make(10, 4, 2, 11, 13) == ErrorCode::shape);
  CHECK(make(11, 5, 2, 11, 13) == ErrorCode::shape);
  CHECK(make(11, 4, 5, 11, 13) == ErrorCode::option);
  CHECK(make(11, 4, 2, 10, 13) == ErrorCode::shape);
  CHECK(make(11, 4, 2, 11, 12) == ErrorCode::shape);
}

TEST_CASE("Calls with tensors that do not fit are refused before anything is written", "[layer]") {
  auto layer = support::routed_layer<float>({}, support::top_2());
  auto work = layer.workspace(8);
  auto gradients = layer.gradients();
  Matrix<float> x(8, 11), y(8, 13), d_x(8, 11), wide(8, 12), many(9, 11), many_y(9, 13);
  for (float& v : y.elements()) v = 5;
  const Matrix<float> before = y;
  CHECK(code_of([&] { layer.forward(wide, y, work); }) == ErrorCode::shape);
  CHECK(code_of([&] { layer.forward(x, wide, work); }) == ErrorCode::shape);
  CHECK(code_of([&] { layer.forward(x, many_y, work); }) == ErrorCode::shape);
  CHECK(code_of([&] { layer.forward(many, many_y, work); }) == ErrorCode::capacity);
  const std::vector<std::uint8_t> mask(7, 1);
  CHECK(code_of([&] { layer.forward(x, y, work, {.token_mask = mask}); }) == ErrorCode::shape);
  const std::vector<Index> starts{0, 5, 3}, late{1, 2}, beyond{0, 9};
  for (const auto& begin : {starts, late, beyond})
    CHECK(code_of([&] { layer.forward(x, y, work, {.sequence_begin = begin}); }) == ErrorCode::shape);
  CHECK(same_bits(y, before));

  layer.forward(x, y, work);
  CHECK(code_of([&] { layer.backward(x, wide, d_x, gradients, work); }) == ErrorCode::shape);
  CHECK(code_of([&] { layer.backward(x, y, wide, gradients, work); }) == ErrorCode::shape);
  CHECK(code_of([&] { layer.workspace(-1); }) == ErrorCode::option);
  Routing<float> unfinished;
  unfinished.start(4);
  for (int n = 0; n < 8; ++n) unfinished.end_token();
  CHECK(code_of([&] { layer.apply(x, unfinished, y, work); }) == ErrorCode::shape);
  const auto fewer = Routing<float>::from_dense(Matrix<float>(8, 3));
  CHECK(code_of([&] { layer.apply(x, fewer, y, work); }) == ErrorCode::shape);
}

TEST_CASE("A backward that does not belong to the last forward is refused, and adds nothing", "[layer]") {
  auto layer = support::routed_layer<float>({}, support::top_2());
  auto work = layer.workspace(8);
  auto gradients = layer.gradients();
  const auto x = random_matrix<float>(8, 11, 1), d_y = random_matrix<float>(8, 13, 2);
  const auto fewer_x = random_matrix<float>(5, 11, 1), fewer_d_y = random_matrix<float>(5, 13, 2);
  Matrix<float> y(8, 13);
  CHECK(code_of([&] { layer.backward(x, d_y, View<float>{}, gradients, work); }) == ErrorCode::shape);  // no forward
  layer.forward(x, y, work);
  CHECK(code_of([&] { layer.backward(fewer_x, fewer_d_y, View<float>{}, gradients, work); }) == ErrorCode::shape);
  CHECK(code_of([&] { layer.route_backward(fewer_x, View<float>{}, gradients, work); }) == ErrorCode::shape);
  const auto dense = Routing<float>::from_dense(random_matrix<float>(8, 4, 3));  // 4 experts a token, forward had 2
  CHECK(code_of([&] { layer.apply_backward(x, dense, d_y, {}, View<float>{}, gradients, work); }) == ErrorCode::shape);
  CHECK(same_bits(gradients.experts.lora_B, Matrix<float>(12, 13)));
  CHECK(same_bits(gradients.router.weight, Matrix<float>(4, 11)));
}

TEST_CASE("An empty batch does nothing and breaks nothing", "[layer]") {
  auto layer = support::routed_layer<float>({}, support::top_2(), Simd<>{});
  auto work = layer.workspace(0);
  auto gradients = layer.gradients();
  Matrix<float> x(0, 11), y(0, 13), d_x(0, 11);
  layer.forward(x, y, work);
  CHECK(work.routing.pairs() == 0);
  CHECK(load_balance(work) == 0);
  layer.backward(x, y, d_x, gradients, work);
  CHECK(same_bits(gradients.experts.lora_A, Matrix<float>(12, 11)));
}

TEST_CASE("A base without backward trains experts, as long as nobody asks for d_x", "[layer]") {
  Rng rng(5);
  const auto negated = [](View<const double> x, View<double> y) {
    for (Index n = 0; n < y.rows(); ++n)
      for (Index o = 0; o < y.cols(); ++o) y(n, o) = -x(n, 0);
  };
  const auto layer = support::with_random_b(MixtureLinear(
      LinearRouter<double>({.in = 11, .experts = 4}, rng), support::top_2(),
      LowRank<DenseFactors<double>>({.in = 11, .out = 13, .experts = 4}, rng), callable_base<double>(11, 13, negated)));
  const auto x = random_matrix<double>(7, 11, 8), d_y = random_matrix<double>(7, 13, 9);
  Matrix<double> y(7, 13), d_x(7, 11);
  auto work = layer.workspace(7);
  auto gradients = layer.gradients();
  layer.forward(x, y, work);
  CHECK(code_of([&] { layer.backward(x, d_y, d_x, gradients, work); }) == ErrorCode::not_trainable);
  CHECK(same_bits(gradients.experts.lora_B, Matrix<double>(32, 13)));  // refused before anything is added
  layer.backward(x, d_y, View<double>{}, gradients, work);
  CHECK_FALSE(same_bits(gradients.experts.lora_B, Matrix<double>(32, 13)));
}

TEST_CASE("A workspace can live in memory of the caller, all of it", "[layer]") {
  const auto layer = support::routed_layer<float>({.dropout = 0.1}, support::top_2());
  std::vector<std::byte> memory(1 << 20);
  std::pmr::monotonic_buffer_resource arena(memory.data(), memory.size(), std::pmr::null_memory_resource());
  const auto x = random_matrix<float>(64, 11, 8);
  Matrix<float> y(64, 13);
  auto* const usual = std::pmr::set_default_resource(std::pmr::null_memory_resource());  // nothing else to live in
  {
    auto work = layer.workspace(64, 0, &arena);
    layer.forward(x, y, work);
  }
  std::pmr::set_default_resource(usual);
  CHECK(same_bits(y, output(layer, x)));
}

TEST_CASE("One workspace serves the backward of several layers, if each recomputes", "[layer]") {
  const auto first = support::routed_layer<float>({.dropout = 0.3}, support::top_2(), Simd<>{});
  const auto second = support::with_random_b(first, 99);
  const auto x = random_matrix<float>(40, 11, 8), d_y = random_matrix<float>(40, 13, 9);
  const Batch batch{.training = true, .layer = 3};
  const auto backward = [&](auto& work) {
    Matrix<float> d_x(40, 11);
    auto gradients = first.gradients();
    first.backward(x, d_y, d_x, gradients, work);
    return std::vector<Matrix<float>>{d_x, gradients.experts.lora_A, gradients.experts.lora_B, gradients.router.weight};
  };
  Matrix<float> y(40, 13);
  auto own = first.workspace(40), shared = first.workspace(40);
  first.forward(x, y, own, batch);
  const auto expected = backward(own);
  first.forward(x, y, shared, batch);
  second.forward(random_matrix<float>(25, 11, 5), y.view().top(25), shared, batch);
  first.recompute(x, shared, batch);
  const auto found = backward(shared);
  for (std::size_t i = 0; i < expected.size(); ++i) CHECK(same_bits(found[i], expected[i]));
}

TEST_CASE("A workspace takes exactly the bytes that the layer announced", "[layer]") {
  const auto check = [](const auto& layer, Index tokens, Index pairs = 0) {
    const std::size_t bytes = layer.workspace_bytes(tokens, pairs);
    detail::CountingMemory counted;
    { const auto work = layer.workspace(tokens, pairs, &counted); }
    CAPTURE(tokens, pairs);
    CHECK(counted.bytes == bytes);

    std::vector<std::byte> memory(bytes);
    std::pmr::monotonic_buffer_resource arena(memory.data(), memory.size(), std::pmr::null_memory_resource());
    CHECK_NOTHROW(layer.workspace(tokens, pairs, &arena));
  };
  for (Index tokens : {0, 1, 7, 64, 513}) {
    check(support::routed_layer<float>({}, support::top_2()), tokens);
    check(support::routed_layer<double>({.dropout = 0.1}, support::top_2()), tokens, 5000);
    check(support::routed_layer<float>({.experts = 64, .rank = 1}, Gate{Softmax{}, All{}, Raw{}}, Simd<>{}), tokens);
    Rng rng(1);
    LinearRouter<float> dropping({.in = 11, .experts = 4, .dropout = {.rate = 0.5}}, rng);
    LowRank<DenseFactors<float>> experts({.in = 11, .out = 13, .experts = 4, .rank = 3}, rng);
    check(MixtureLinear(dropping, support::top_2(), experts, NoBase<float>{11, 13}), tokens);
    check(MixtureLinear(External{}, NoGating{}, experts, NoBase<float>{11, 13}), tokens);
    check(MixtureLinear(External{}, NoGating{}, experts, NoBase<float>{11, 13}), tokens, 3);
    LowRank<SparseProjection<float>> sparse({.in = 11, .out = 13, .experts = 8, .nonzeros = 3}, rng);
    check(MixtureLinear(LatentRouter<float>(8), Gate{Magnitude{}, TopK{2}, Unit{}}, sparse, NoBase<float>{11, 13}),
          tokens);
  }
}
