// SPDX-License-Identifier: MIT
#include "mole/expert/compressed_experts.hpp"

#include "core/error_code.hpp"
#include "mole/execution/thread_pool.hpp"
#include "mole/layer/check_gradients.hpp"
#include "mole/mole.hpp"
#include "mole/testing/expert_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;

namespace {

constexpr Index compressed_in = 70, compressed_out = 6, compressed_count = 5;

template <class T>
LowRank<DenseFactors<T>> running_experts(double dropout = 0, Index width = compressed_in) {
  Rng rng(1);
  LowRank<DenseFactors<T>> experts({.in = width,
                                    .out = compressed_out,
                                    .experts = compressed_count,
                                    .rank = 2,
                                    .alpha = 4,
                                    .dropout = {.rate = dropout, .stream = 1}},
                                   rng);
  fill_uniform(experts.parameters().lora_B.view(), 1, rng);
  return experts;
}

template <class T>
auto with_vectors(LowRank<DenseFactors<T>> experts, Index main) {
  Rng rng(3);
  CompressedExperts compressed(std::move(experts), main);
  fill_uniform(compressed.parameters().compressed.view(), 1, rng);
  return compressed;
}

template <class Experts, class Gating, class Execution = Simd<>>
auto compressed_layer(const Experts& experts, Gating gating, Execution execution = {}) {
  using T = typename Experts::Scalar;
  Rng rng(5);
  return MixtureLinear(LinearRouter<T>({.in = experts.in(), .experts = compressed_count}, rng), gating, experts,
                       DenseBase(support::random_matrix<T>(compressed_out, experts.in(), 6)), std::move(execution));
}

Gate<Softmax, TopK, Raw> best(Index chosen) {
  return {Softmax{}, TopK{chosen}, Raw{}};
}

}  // namespace

TEST_CASE("The best experts run on what the next ones rescale", "[expert]") {
  for (Index main : {1, 2, 4})
    for (Index tokens : {0, 1, 9}) {
      const auto experts = with_vectors(running_experts<double>(), main);
      const auto layer = compressed_layer(experts, best(4));
      const auto x = support::random_matrix<double>(tokens, compressed_in, 2);
      Matrix<double> y(tokens, compressed_out);
      auto work = layer.workspace(tokens);
      layer.forward(x, y, work);
      double worst = 0;
      for (Index n = 0; n < tokens; ++n) {
        const auto chosen = work.routing.experts_of(n);
        const auto gates = std::as_const(work.routing).gates_of(n);
        Matrix<double> delta(compressed_out, compressed_in);
        for (std::size_t j = 0; j < std::size_t(main); ++j)
          experts.main_experts().add_delta(chosen[j], gates[j], delta.view());
        double sum = 0;
        for (std::size_t j = std::size_t(main); j < 4; ++j) sum += gates[j];
        for (Index o = 0; o < compressed_out; ++o) {
          double expected = 0;
          for (Index i = 0; i < compressed_in; ++i) {
            double theta = main < 4 ? 0 : 1;
            for (std::size_t j = std::size_t(main); j < 4; ++j)
              theta += gates[j] / sum * experts.parameters().compressed(chosen[j], i);
            expected += layer.base().weight()(o, i) * x(n, i) + delta(o, i) * theta * x(n, i);
          }
          worst = std::max(worst, std::abs(y(n, o) - expected));
        }
      }
      CHECK(worst < 1e-12);
    }
}

TEST_CASE("With vectors of 1 the best experts are there alone, under the same gates, bit for bit", "[expert]") {
  const auto x = support::random_matrix<float>(9, compressed_in, 2);
  const auto fresh = CompressedExperts(running_experts<float>(), 2);
  for (Index auxiliary : {0, 1, 3})
    CHECK(support::same_bits(support::output(compressed_layer(fresh, best(2 + auxiliary)), x),
                             support::output(compressed_layer(running_experts<float>(), best(2)), x)));
}

TEST_CASE("A vector that all auxiliary experts share is used as it is, and only ratios of their gates count",
          "[expert]") {
  auto experts = CompressedExperts(running_experts<double>(), 2);
  const auto theta = support::random_matrix<double>(1, compressed_in, 4);
  for (Index e = 0; e < compressed_count; ++e)
    std::ranges::copy(theta.elements(), experts.parameters().compressed.view().row_data(e));
  const auto x = support::random_matrix<double>(1, compressed_in, 2);
  Matrix<double> scaled = x;
  for (Index i = 0; i < compressed_in; ++i) scaled(0, i) *= theta(0, i);
  const auto routing_of = [](double first, double second) {
    Routing<double> routing;
    routing.start(compressed_count);
    for (const auto& [expert, gate] : {std::pair{3, 0.4}, {1, 0.3}, {0, first}, {4, second}})
      routing.push(expert, gate);
    routing.end_token();
    routing.finish();
    return routing;
  };
  Routing<double> main;
  main.start(compressed_count);
  main.push(3, 0.4), main.push(1, 0.3), main.end_token(), main.finish();
  const Matrix<double> zero(1, compressed_out);
  const auto expected = laws::added(running_experts<double>(), scaled, main, zero);
  for (double first : {0.2, 1e-3})
    CHECK(support::largest_difference(laws::added(experts, x, routing_of(first, 0.1), zero), expected) < 1e-14);
  const auto others = with_vectors(running_experts<double>(), 2);
  const auto once = laws::added(others, x, routing_of(0.2, 0.1), zero);
  CHECK(support::largest_difference(laws::added(others, x, routing_of(0.02, 0.01), zero), once) < 1e-14);
  CHECK(support::largest_difference(laws::added(others, x, routing_of(0.1, 0.2), zero), once) > 1e-3);
  const auto alike = laws::added(others, x, routing_of(0, 0), zero);
  CHECK(support::largest_difference(alike, laws::added(others, x, routing_of(0.1, 0.1), zero)) < 1e-14);
}

TEST_CASE("CompressedExperts have exact gradients, also where gates are shares and rows are dropped", "[expert]") {
  for (Index main : {1, 2, 3}) {
    auto layer = compressed_layer(with_vectors(running_experts<double>(0.3, 7), main), best(3), Reference{});
    CHECK(check_gradients(layer, {.pass = {.training = true, .seed = 2}}).passed(1e-8));
    auto shares =
        compressed_layer(with_vectors(running_experts<double>(0, 7), main), Gate{Softmax{}, TopK{4}, Renormalized{}});
    CHECK(check_gradients(shares).passed(1e-8));
  }
  Rng rng(2);
  CompressedExperts whole(MapExperts<DenseMaps<double>>({.in = 7, .out = 6, .experts = compressed_count}, rng), 2);
  fill_uniform(whole.parameters().compressed.view(), 1, rng);
  auto layer = compressed_layer(whole, best(4));
  CHECK(check_gradients(layer).passed(1e-8));
}

TEST_CASE("The vector of an expert that only runs gets no gradient, that of an auxiliary one does", "[expert]") {
  const auto layer = compressed_layer(with_vectors(running_experts<double>(), 2), best(3));
  const auto x = support::random_matrix<double>(1, compressed_in, 2), d_y = support::random_matrix<double>(1, 6, 3);
  auto work = layer.workspace(1);
  auto gradients = layer.gradients();
  Matrix<double> y(1, 6);
  layer.forward(x, y, work);
  layer.backward(x, d_y, {}, gradients, work);
  for (Index e = 0; e < compressed_count; ++e)
    CHECK((gradients.experts.compressed(e, 0) != 0) == (work.routing.expert(2) == e));
  auto frozen = layer.gradients();
  frozen.experts.compressed = {};
  layer.forward(x, y, work);
  layer.backward(x, d_y, {}, frozen, work);
  CHECK(frozen.experts.compressed.empty());
  CHECK(support::same_bits(frozen.router.weight, gradients.router.weight));
  CHECK(support::same_bits(frozen.experts.experts.lora_A, gradients.experts.experts.lora_A));
}

TEST_CASE("CompressedExperts have the same bits on threads, and those of a token alone", "[expert]") {
  const auto x = support::random_matrix<float>(9, compressed_in, 2), d_y = support::random_matrix<float>(9, 6, 4);
  const auto results = [&](auto execution) {
    const auto layer = compressed_layer(with_vectors(running_experts<float>(), 2), best(4), execution);
    auto work = layer.workspace(9);
    auto gradients = layer.gradients();
    Matrix<float> y(9, 6), d_x(9, compressed_in);
    layer.forward(x, y, work);
    layer.backward(x, d_y, d_x, gradients, work);
    return std::vector<Matrix<float>>{y, d_x, gradients.experts.compressed, gradients.experts.experts.lora_A,
                                      gradients.router.weight};
  };
  const auto one = results(Simd<>{}), three = results(Simd(ThreadPool(3)));
  for (std::size_t i = 0; i < one.size(); ++i) CHECK(support::same_bits(one[i], three[i]));
  CHECK(laws::broken_expert_law(with_vectors(running_experts<float>(), 1)) == "");
  CHECK(laws::broken_expert_law(with_vectors(running_experts<double>(), 2)) == "");
}

TEST_CASE("What an unrouted token holds reaches no gradient of CompressedExperts", "[expert]") {
  auto x = support::random_matrix<double>(3, compressed_in, 2);
  for (double& element : x.view().row(1)) element = std::nan("");
  const std::uint8_t routed[] = {1, 0, 1};
  const auto layer = compressed_layer(with_vectors(running_experts<double>(), 2), best(4));
  auto work = layer.workspace(3);
  auto gradients = layer.gradients();
  Matrix<double> y(3, 6), d_x(3, compressed_in);
  layer.forward(x, y, work, {.routed = routed});
  layer.backward(x, support::random_matrix<double>(3, 6, 3), d_x, gradients, work);
  for (const auto* tensor : {&gradients.experts.compressed, &gradients.experts.experts.lora_A, &d_x})
    for (double d : tensor->elements()) CHECK(std::isfinite(d));
}

TEST_CASE("CompressedExperts refuse to run nobody, and vectors that do not fit; they have the numbers they say",
          "[expert]") {
  CHECK(test::code_of([] { CompressedExperts(running_experts<double>(), 0); }) == ErrorCode::option);
  auto experts = CompressedExperts(running_experts<double>(), 1);
  CHECK(experts.parameters().compressed.size() == compressed_count * compressed_in);
  experts.parameters().compressed = Matrix<double>(2, compressed_in);
  CHECK(test::code_of([&] { experts.check_sizes(); }) == ErrorCode::shape);
  Rng rng;
  const CompressedExperts wide(LowRank<DenseFactors<float>>({.in = 4096, .out = 4096, .rank = 1, .alpha = 1}, rng), 1);
  CHECK(wide.parameters().compressed.size() * Index(sizeof(float)) == 16'384);
}

TEST_CASE("Experts that wrap experts are trained in place, all of them", "[expert]") {
  const auto all_trained = [](auto layer, std::vector<std::string> expected) {
    CHECK(check_gradients(layer).worst < 1e-8);
    std::vector<std::string> names;
    auto gradients = layer.gradients();
    layer.for_each_tensor(
        [&](std::string_view name, View<double> tensor, View<double>) {
          fill(tensor, 0.25);
          if (name.starts_with("experts")) names.emplace_back(name);
        },
        gradients);
    CHECK(names == expected);
    std::size_t changed = 0;
    layer.for_each_tensor([&](std::string_view, View<double> tensor) { changed += tensor(0, 0) == 0.25; });
    CHECK(changed >= expected.size());
  };
  BiasedExperts biased(running_experts<double>());
  fill(biased.bias().view(), 0.5);
  all_trained(compressed_layer(CompressedExperts(biased, 2), best(4)),
              {"experts.compressed", "experts.main.lora_A", "experts.main.lora_B", "experts.main.bias"});
  Rng rng(1);
  BiasedExperts bank(LowRank<GrowingBank<double>>(
      {.in = compressed_in, .out = compressed_out, .ranks = {2, compressed_count - 2}}, rng));
  auto layer = compressed_layer(bank, best(4));
  layer.for_each_tensor([&](std::string_view, View<double> tensor) { fill_uniform(tensor, 1, rng); });
  CHECK(check_gradients(layer).worst < 1e-8);
}

TEST_CASE("Auxiliary gates that have almost vanished give no infinite gradient", "[expert]") {
  const auto layer = compressed_layer(with_vectors(running_experts<float>(), 1), best(3));
  const auto x = support::random_matrix<float>(2, compressed_in, 2), d_y = support::random_matrix<float>(2, 6, 4);
  for (float gate : {1e-39f, 1e-20f, 1e-17f, 0.0f}) {
    Matrix<float> gates(2, compressed_count), y(2, 6), d_x(2, compressed_in);
    for (Index n = 0; n < 2; ++n) gates(n, 0) = 1, gates(n, 2) = gate, gates(n, 3) = 2 * gate;
    const auto routing = Routing<float>::from_dense(gates);
    std::vector<float> d_gate(std::size_t(routing.pairs()));
    auto work = layer.workspace(2);
    auto gradients = layer.gradients();
    layer.apply(x, routing, y, work);
    layer.apply_backward(x, routing, d_y, d_gate, d_x, gradients, work);
    for (float d : d_gate) CHECK(std::isfinite(d * gate));
    for (float d : d_gate) CHECK(std::isfinite(d));
  }
}
