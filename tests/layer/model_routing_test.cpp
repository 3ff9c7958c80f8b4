// SPDX-License-Identifier: MIT
#include "mole/layer/model_routing.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/central_differences.hpp"
#include "support/layers.hpp"

#include <limits>

using namespace mole;
using support::random_matrix;

namespace {

constexpr Index model_layers = 3, model_experts = 4, tokens_of_model = 6, hidden_of_model = 5;

template <class Gating>
auto model_routing(Gating gating) {
  Rng rng(2);
  return ModelRouting(LinearRouter<double>({.in = hidden_of_model, .experts = model_layers * model_experts}, rng),
                      gating, {.layers = model_layers, .experts = model_experts}, Reference{});
}

/// Layers of trained adapters, one after the other.
struct AdaptedModel {
  AdaptedModel() {
    for (std::uint64_t m = 0; m < std::uint64_t(model_layers); ++m) {
      Rng rng(10 + m);
      LowRank<DenseFactors<double>> experts({.in = 7, .out = 7, .experts = model_experts, .rank = 2}, rng);
      fill_uniform(experts.parameters().lora_B.view(), 1, rng);
      layers.emplace_back(experts, DenseBase(random_matrix<double>(7, 7, 20 + m)), Reference{});
      work.push_back(layers.back().workspace(tokens_of_model));
      y.emplace_back(tokens_of_model, 7);
    }
  }
  const Matrix<double>& input(std::size_t m) const { return m == 0 ? x : y[m - 1]; }

  Matrix<double> x = random_matrix<double>(tokens_of_model, 7, 1);
  std::vector<ExpertLinear<LowRank<DenseFactors<double>>, DenseBase<Matrix<double>>, Reference>> layers;
  std::vector<ExpertWorkspace<LowRank<DenseFactors<double>>, DenseBase<Matrix<double>>>> work;
  std::vector<Matrix<double>> y;
};

}  // namespace

TEST_CASE("Each layer has the routing of its columns, as if it had a router of its own", "[layer]") {
  const auto routing = model_routing(support::top_2());
  const auto h = random_matrix<double>(tokens_of_model, hidden_of_model, 3);
  auto work = routing.workspace(tokens_of_model);
  routing.route(h, work);
  for (Index m = 0; m < model_layers; ++m) {
    Rng rng(1);
    Matrix<double> rows(model_experts, hidden_of_model);
    copy<double>(routing.router().parameters().weight.view().middle_rows(m * model_experts, model_experts),
                 rows.view());
    MixtureLinear alone(
        LinearRouter<double>({rows, {}}), support::top_2(),
        LowRank<DenseFactors<double>>({.in = hidden_of_model, .out = 2, .experts = model_experts, .rank = 1}, rng),
        NoBase<double>(hidden_of_model, 2), Reference{});
    auto own = alone.workspace(tokens_of_model);
    alone.route(h, own);
    REQUIRE(work.routing(m).pairs() == own.routing.pairs());
    for (Index p = 0; p < own.routing.pairs(); ++p) {
      CHECK(work.routing(m).expert(p) == own.routing.expert(p));
      CHECK(std::abs(work.routing(m).gate(p) - own.routing.gate(p)) < 1e-15);
    }
    for (Index n = 0; n < tokens_of_model; ++n)
      for (Index e = 0; e < model_experts; ++e)
        CHECK(std::abs(work.trace(m).logits()(n, e) - own.logits()(n, e)) < 1e-15);
  }
}

TEST_CASE("Gradients of all layers reach the router and what it reads", "[layer]") {
  auto routing = model_routing(Gate{Softmax{}, All{}, Raw{}});
  auto h = random_matrix<double>(tokens_of_model, hidden_of_model, 3);
  AdaptedModel model;
  auto work = routing.workspace(tokens_of_model);
  const auto d_y = random_matrix<double>(tokens_of_model, 7, 5);
  const auto value = [&] {
    routing.route(h, work);
    double sum = 0;
    for (std::size_t m = 0; m < model.layers.size(); ++m)
      model.layers[m].apply(model.input(m), work.routing(Index(m)), model.y[m], model.work[m]);
    for (std::size_t i = 0; i < d_y.elements().size(); ++i) sum += model.y.back().elements()[i] * d_y.elements()[i];
    return sum;
  };
  value();
  Matrix<double> d_h(tokens_of_model, hidden_of_model), d = d_y;
  auto gradients = routing.gradients();
  for (std::size_t m = model.layers.size(); m-- > 0;) {
    auto of_layer = model.layers[m].gradients();
    Matrix<double> d_x(tokens_of_model, 7);
    model.layers[m].apply_backward(model.input(m), work.routing(Index(m)), d, work.d_gate(Index(m)), d_x, of_layer,
                                   model.work[m]);
    d = d_x;
  }
  routing.route_backward(h, d_h, gradients, work);
  CHECK(test::gradient_error(h.elements(), d_h.elements(), value) < test::gradient_tolerance);
  CHECK(test::gradient_error(routing.router().parameters().weight.elements(), gradients.weight.elements(), value) <
        test::gradient_tolerance);
}

TEST_CASE("Layers that share one decision add to one d_gate", "[layer]") {
  Rng rng(2);
  ModelRouting routing(LinearRouter<double>({.in = hidden_of_model, .experts = model_experts}, rng),
                       Gate{Softmax{}, All{}, Raw{}}, {.layers = 1, .experts = model_experts}, Reference{});
  const auto h = random_matrix<double>(tokens_of_model, hidden_of_model, 3);
  AdaptedModel model;
  auto work = routing.workspace(tokens_of_model);
  const auto d_y = random_matrix<double>(tokens_of_model, 7, 5);
  auto of_layer = model.layers[0].gradients();
  const auto backward_of = [&](std::initializer_list<std::size_t> layers) {
    auto gradients = routing.gradients();
    routing.route(h, work);
    for (std::size_t m : layers) {
      model.layers[m].apply(model.x, work.routing(0), model.y[m], model.work[m]);
      model.layers[m].apply_backward(model.x, work.routing(0), d_y, work.d_gate(0), {}, of_layer, model.work[m]);
    }
    routing.route_backward(h, {}, gradients, work);
    return gradients.weight;
  };
  const auto both = backward_of({0, 1}), first = backward_of({0}), second = backward_of({1});
  for (std::size_t i = 0; i < both.elements().size(); ++i)
    CHECK(std::abs(both.elements()[i] - first.elements()[i] - second.elements()[i]) < 1e-14);
}

TEST_CASE("Losses take the trace of a layer, and the router learns from them", "[layer]") {
  const auto routing = model_routing(support::top_2());
  const auto h = random_matrix<double>(tokens_of_model, hidden_of_model, 3);
  auto work = routing.workspace(tokens_of_model);
  auto gradients = routing.gradients();
  routing.route(h, work);
  CHECK(load_balance(work.trace(1)) > 0);
  routing.route_backward(h, {}, gradients, work);
  for (Index row = 0; row < gradients.weight.rows(); ++row) {
    const auto d = std::as_const(gradients.weight).view().row(row);
    const bool zero = std::ranges::all_of(d, [](double number) { return number == 0; });
    CHECK(zero == (row / model_experts != 1));
  }
}

TEST_CASE("What a token that is not routed holds reaches no gradient of the model's router", "[layer]") {
  const auto routing = model_routing(support::top_2());
  auto h = random_matrix<double>(3, hidden_of_model, 3);
  h(1, 2) = std::numeric_limits<double>::quiet_NaN();
  const std::vector<std::uint8_t> routed{1, 0, 1};
  auto work = routing.workspace(tokens_of_model);
  auto gradients = routing.gradients();
  routing.route(h, work, {.routed = routed});
  for (Index m = 0; m < model_layers; ++m) std::ranges::fill(work.d_gate(m), 1.5);
  routing.route_backward(h, {}, gradients, work);
  CHECK(support::all_finite(std::as_const(gradients.weight).elements()));
}

TEST_CASE("ModelRouting names its router's tensors once, for optimizers and checkpoints", "[layer]") {
  auto routing = model_routing(support::top_2());
  auto gradients = routing.gradients();
  std::vector<std::string> names;
  routing.for_each_tensor([&](std::string_view name, auto, auto) { names.emplace_back(name); }, gradients);
  CHECK(names == std::vector<std::string>{"weight"});
}

TEST_CASE("ModelRouting refuses parts that do not fit, calls out of turn and layers that it has not", "[layer]") {
  using test::code_of;
  Rng rng(1);
  const LinearRouter<double> router({.in = 5, .experts = 8}, rng);
  const auto code = [&](const ModelRoutingOptions& options) {
    return code_of([&] { ModelRouting(router, support::top_2(), options, Reference{}); });
  };
  CHECK_FALSE(code({.layers = 2, .experts = 4}));
  CHECK(code({.layers = 3, .experts = 4}) == ErrorCode::shape);
  CHECK(code({.layers = 0, .experts = 4}) == ErrorCode::option);
  CHECK(code({.layers = 8, .experts = 1}) == ErrorCode::option);  // the best 2 of 1

  const auto routing = model_routing(support::top_2());
  const auto h = random_matrix<double>(3, hidden_of_model, 3), wide = random_matrix<double>(3, 6, 3),
             many = random_matrix<double>(7, hidden_of_model, 3);
  auto work = routing.workspace(tokens_of_model);
  auto gradients = routing.gradients();
  Matrix<double> d_h(3, hidden_of_model), narrow(3, 4);
  CHECK(code_of([&] { routing.route_backward(h, d_h, gradients, work); }) == ErrorCode::order);
  CHECK(code_of([&] { routing.route(wide, work); }) == ErrorCode::shape);
  CHECK(code_of([&] { routing.route(many, work); }) == ErrorCode::capacity);
  routing.route(h, work);
  CHECK(code_of([&] { work.routing(3); }) == ErrorCode::option);
  CHECK(code_of([&] { work.d_gate(-1); }) == ErrorCode::option);
  CHECK(code_of([&] { routing.route_backward(h, narrow, gradients, work); }) == ErrorCode::shape);
  auto wrong = gradients;
  wrong.weight = Matrix<double>(2, 2);
  CHECK(code_of([&] { routing.route_backward(h, d_h, wrong, work); }) == ErrorCode::shape);
  auto same = h;
  routing.route(same, work);
  CHECK(code_of([&] { routing.route_backward(same, same.view(), gradients, work); }) == ErrorCode::shape);
  routing.route(h, work);
  CHECK_NOTHROW(routing.route_backward(h, d_h, gradients, work));
  CHECK(code_of([&] { routing.route_backward(h, d_h, gradients, work); }) == ErrorCode::order);
  routing.route(Matrix<double>(0, hidden_of_model), work);
  CHECK(work.routing(0).pairs() == 0);
}
