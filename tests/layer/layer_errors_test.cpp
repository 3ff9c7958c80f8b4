// SPDX-License-Identifier: MIT
// What a layer refuses.
#include "mole/layer/mixture_linear.hpp"

#include "core/error_code.hpp"
#include "mole/mole.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;
using support::output;
using support::random_matrix;
using support::same_bits;
using test::code_of;

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
  CHECK(make(11, 4, 2, 11, 13) == std::nullopt);
  CHECK(make(10, 4, 2, 11, 13) == ErrorCode::shape);
  CHECK(make(11, 5, 2, 11, 13) == ErrorCode::shape);
  CHECK(make(11, 4, 5, 11, 13) == ErrorCode::option);
  CHECK(make(11, 4, 2, 10, 13) == ErrorCode::shape);
  CHECK(make(11, 4, 2, 11, 12) == ErrorCode::shape);
}

TEST_CASE("Parts that no longer fit each other are refused in the next call", "[layer]") {
  const auto x = random_matrix<float>(8, 11, 1);
  const auto code_after = [&](auto change) {
    auto layer = support::routed_layer<float>({}, support::top_2(), Simd<>{});
    auto work = layer.workspace(8);
    Matrix<float> y(8, 13);
    layer.forward(x, y, work);
    change(layer);
    CHECK(code_of([&] { layer.workspace(8); }) == code_of([&] { layer.forward(x, y, work); }));
    CHECK(code_of([&] { layer.forward(x, y, work); }) == code_of([&] { layer.apply(x, work.routing, y, work); }));
    return code_of([&] { layer.forward(x, y, work); });
  };
  Rng rng(1);
  CHECK(code_after([](auto& layer) { layer.base().parameters().weight = Matrix<float>(64, 64); }) == ErrorCode::shape);
  CHECK(code_after([](auto& layer) { layer.base().parameters().bias = Matrix<float>(1, 2); }) == ErrorCode::shape);
  CHECK(code_after([&](auto& layer) { layer.router() = LinearRouter<float>({.in = 32, .experts = 4}, rng); }) ==
        ErrorCode::shape);
  CHECK(code_after([](auto& layer) { layer.router().parameters().bias = Matrix<float>(1, 3); }) == ErrorCode::shape);
  CHECK(code_after([](auto& layer) { layer.gating().select.k = 9; }) == ErrorCode::option);
  CHECK(code_after([](auto& layer) { layer.experts().parameters().lora_A = Matrix<float>(2, 11); }) ==
        ErrorCode::shape);
  CHECK(code_after([](auto& layer) { layer.experts().parameters().lora_B = Matrix<float>(2, 13); }) ==
        ErrorCode::shape);
  CHECK(code_after([&](auto& layer) {
          layer.experts().factors() = DenseFactors<float>({.in = 11, .out = 13, .experts = 7}, rng);
        }) == ErrorCode::shape);
  CHECK(code_after([](auto& layer) { layer.experts().parameters().lora_A(0, 0) = 3; }) == std::nullopt);
}

TEST_CASE("Routers whose tensors no longer fit each other say so", "[layer]") {
  Rng rng(1);
  const auto refused = [](auto router, auto change) {
    CHECK_NOTHROW(router.check_sizes());
    change(router.parameters());
    return code_of([&] { router.check_sizes(); }) == ErrorCode::shape;
  };
  const MlpRouter<float> mlp({.in = 5, .hidden = 3, .experts = 4}, rng);
  CHECK(refused(mlp, [](auto& p) { p.hidden.weight = Matrix<float>(2, 5); }));
  CHECK(refused(mlp, [](auto& p) { p.output.weight = Matrix<float>(4, 2); }));
  CHECK(refused(mlp, [](auto& p) { p.output.bias = Matrix<float>(4, 1); }));
  const CosineRouter<float> cosine({.in = 5, .experts = 4, .projection = 3}, rng);
  CHECK(refused(cosine, [](auto& p) { p.prototypes = Matrix<float>(4, 2); }));
  CHECK(refused(cosine, [](auto& p) { p.projection.bias = Matrix<float>(1, 2); }));
  CHECK(refused(cosine, [](auto& p) { p.log_scale = Matrix<float>(1, 2); }));
  GruCell<float> cell({.in = 2, .width = 3}, rng);
  const RecurrentRouter<float> recurrent({.in = 5, .experts = 4}, cell, rng);
  CHECK(refused(recurrent, [](auto& p) { p.input.weight = Matrix<float>(3, 5); }));
  CHECK(refused(recurrent, [](auto& p) { p.output.weight = Matrix<float>(4, 2); }));
  CHECK(refused(recurrent, [&](auto&) { cell.parameters().hidden.weight = Matrix<float>(6, 3); }));
  const RepeatedRouter<float> repeated(LinearRouter<float>({.in = 5, .experts = 4, .bias = true}, rng), 2);
  CHECK(refused(repeated, [](auto& p) { p.bias = Matrix<float>(1, 3); }));
  const JoinedRouter joined(LinearRouter<float>({.in = 5, .experts = 4}, rng), mlp);
  CHECK(refused(joined, [](auto p) { p.first.weight = Matrix<float>(4, 6); }));
  CHECK(refused(joined, [](auto p) { p.second.output.weight = Matrix<float>(4, 2); }));
}

TEST_CASE("Roles that no longer fit each other after a change are refused by the next call", "[layer]") {
  const auto routed = support::routed_layer<float>({}, support::top_2(), Simd<>{});
  const auto x = random_matrix<float>(8, 11, 1);
  Rng rng(5);
  const auto code_after = [&](const auto& change) {
    MixtureLinear layer(routed.router(), routed.gating(), routed.experts(), routed.base(), routed.execution());
    Matrix<float> y(8, 13);
    auto work = layer.workspace(8, 0, std::pmr::get_default_resource(), 1 << 16);
    layer.forward(x, y, work);
    change(layer);
    return code_of([&] { layer.forward(x, y, work); });
  };
  CHECK(code_after([](auto& layer) { layer.gating().select.k = 4; }) == std::nullopt);
  CHECK(code_after([](auto& layer) { layer.gating().select.k = 5; }) == ErrorCode::option);
  for (Index inputs : {10, 12})
    CHECK(code_after([&](auto& layer) { layer.router() = LinearRouter<float>({.in = inputs, .experts = 4}, rng); }) ==
          ErrorCode::shape);
  CHECK(code_after([](auto& layer) { layer.base() = DenseBase(Matrix<float>(14, 11)); }) == ErrorCode::shape);
  for (Index experts : {3, 5})
    CHECK(code_after([&](auto& layer) {
            layer.experts() = LowRank<DenseFactors<float>>({.in = 11, .out = 13, .experts = experts}, rng);
          }) == ErrorCode::shape);
}

TEMPLATE_TEST_CASE("Calls with tensors that do not fit are refused before anything is written", "[layer]", Reference,
                   Simd<>) {
  auto layer = support::routed_layer<float>({}, support::top_2(), TestType{});
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
  CHECK(code_of([&] { layer.apply(x, unfinished, y, work); }) == ErrorCode::order);
  const auto fewer = Routing<float>::from_dense(Matrix<float>(8, 3));
  CHECK(code_of([&] { layer.apply(x, fewer, y, work); }) == ErrorCode::shape);
  for (Index tokens : {7, 9}) {
    const auto of_others = Routing<float>::from_dense(Matrix<float>(tokens, 4));
    CHECK(code_of([&] { layer.apply(x, of_others, y, work); }) == ErrorCode::shape);
  }
}

TEMPLATE_TEST_CASE("A backward that does not belong to the last forward is refused, and adds nothing", "[layer]",
                   Reference, Simd<>) {
  auto layer = support::routed_layer<float>({}, support::top_2(), TestType{});
  auto work = layer.workspace(8);
  auto gradients = layer.gradients();
  const auto x = random_matrix<float>(8, 11, 1), d_y = random_matrix<float>(8, 13, 2);
  const auto fewer_x = random_matrix<float>(5, 11, 1), fewer_d_y = random_matrix<float>(5, 13, 2);
  Matrix<float> y(8, 13);
  CHECK(code_of([&] { layer.backward(x, d_y, View<float>{}, gradients, work); }) == ErrorCode::order);  // no forward
  layer.forward(x, y, work);
  CHECK(code_of([&] { layer.backward(fewer_x, fewer_d_y, View<float>{}, gradients, work); }) == ErrorCode::shape);
  CHECK(code_of([&] { layer.route_backward(fewer_x, View<float>{}, gradients, work); }) == ErrorCode::shape);
  const auto dense = Routing<float>::from_dense(random_matrix<float>(8, 4, 3));  // 4 experts a token, forward had 2
  CHECK(code_of([&] { layer.apply_backward(x, dense, d_y, {}, View<float>{}, gradients, work); }) == ErrorCode::order);
  CHECK(same_bits(gradients.experts.lora_B, Matrix<float>(12, 13)));
  CHECK(same_bits(gradients.router.weight, Matrix<float>(4, 11)));
}

TEMPLATE_TEST_CASE("Results of another size than the layer's are refused in backward, and nothing is written",
                   "[layer]", Reference, Simd<>) {
  auto layer = support::routed_layer<float>({}, support::top_2(), TestType{});
  auto work = layer.workspace(8);
  auto gradients = layer.gradients();
  const auto x = random_matrix<float>(8, 11, 1), d_y = random_matrix<float>(8, 13, 2);
  Matrix<float> y(8, 13);
  layer.forward(x, y, work);
  const auto refused = [&](const auto& call) {
    CHECK(code_of(call) == ErrorCode::shape);
    CHECK(same_bits(gradients.experts.lora_A, Matrix<float>(12, 11)));
    CHECK(same_bits(gradients.experts.lora_B, Matrix<float>(12, 13)));
    CHECK(same_bits(gradients.router.weight, Matrix<float>(4, 11)));
  };
  for (const auto& [rows, cols] : {std::pair<Index, Index>{7, 11}, {9, 11}, {8, 10}, {8, 12}}) {
    Matrix<float> d_x(rows, cols);
    CAPTURE(rows, cols);
    refused([&] { layer.backward(x, d_y, d_x, gradients, work); });
    refused([&] { layer.route_backward(x, d_x, gradients, work); });
    refused([&] { layer.apply_backward(x, work.routing, d_y, {}, d_x, gradients, work); });
    CHECK(same_bits(d_x, Matrix<float>(rows, cols)));
  }
  for (const auto& [rows, cols] : {std::pair<Index, Index>{7, 13}, {9, 13}, {8, 12}, {8, 14}}) {
    Matrix<float> d_x(8, 11);
    const Matrix<float> wrong_d_y(rows, cols);
    CAPTURE(rows, cols);
    refused([&] { layer.backward(x, wrong_d_y, d_x, gradients, work); });
    refused([&] { layer.apply_backward(x, work.routing, wrong_d_y, {}, d_x, gradients, work); });
    CHECK(same_bits(d_x, Matrix<float>(8, 11)));
  }
  for (std::size_t pairs : {1u, 15u, 17u}) {  // of 16
    std::vector<float> d_gate(pairs);
    CAPTURE(pairs);
    refused([&] { layer.apply_backward(x, work.routing, d_y, d_gate, {}, gradients, work); });
  }
  CHECK_NOTHROW(layer.backward(x, d_y, {}, gradients, work));
}

TEST_CASE("A shared expert cannot be forced, whatever else the gate has in its logits", "[layer]") {
  // One column beyond the experts and one expert without: as many columns as experts.
  Rng rng(5);
  const MixtureLinear layer(LinearRouter<float>({.in = 11, .experts = 4}, rng),
                            Gate{SoftmaxWithThreshold{}, LearnedThreshold{}, Shifted{}, 1},
                            LowRank<DenseFactors<float>>({.in = 11, .out = 13, .experts = 4}, rng),
                            NoBase<float>(11, 13));
  CHECK(layer.gating().columns(4) == 4);
  CHECK(layer.gating().shared() == 1);
  auto work = layer.workspace(2);
  const auto x = random_matrix<float>(2, 11, 8);
  Matrix<float> y(2, 13);
  for (int expert : {-1, 0, 2, 3, 4}) {
    const std::vector<int> forced{expert, -1};
    const auto code = code_of([&] { layer.forward(x, y, work, {.forced = forced}); });
    CHECK(code == (expert < 3 ? std::nullopt : std::optional(ErrorCode::option)));
    if (expert < 0 || code) continue;
    const auto served = work.routing.experts_of(0);
    CHECK((served.size() == 2 && served[0] == expert && served[1] == 3));
  }
}
