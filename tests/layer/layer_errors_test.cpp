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
