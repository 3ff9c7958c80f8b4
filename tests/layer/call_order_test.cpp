// SPDX-License-Identifier: MIT
// Which backward may follow which forward, and for which workspace.
#include "mole/layer/call_order.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "mole/mole.hpp"
#include "support/layers.hpp"

using namespace mole;
using support::random_matrix;
using support::same_bits;
using test::code_of;

namespace {

/// A layer, the tensors of a call, and its gradients.
template <class Layer>
struct Case {
  explicit Case(Layer layer_, Index tokens = 8)
      : layer(std::move(layer_)),
        x(random_matrix<float>(tokens, layer.in(), 1)),
        d_y(random_matrix<float>(tokens, layer.out(), 2)),
        y(tokens, layer.out()),
        d_x(tokens, layer.in()),
        gradients(layer.gradients()) {}

  void forward(auto& work) { layer.forward(x, y, work, {.training = true, .seed = 3}); }
  void backward(auto& work) { layer.backward(x, d_y, d_x, gradients, work); }
  /// y, d_x and all gradients of one step from zero.
  std::vector<Matrix<float>> step(auto& work) {
    set_zero(gradients);
    d_x.set_zero();
    forward(work);
    backward(work);
    return {y, d_x, gradients.router.weight, gradients.experts.lora_A, gradients.experts.lora_B};
  }

  Layer layer;
  Matrix<float> x, d_y, y, d_x;
  typename Layer::Gradients gradients;
};

auto small() {
  return Case(support::routed_layer<float>({}, support::top_2(), Simd<>{}));
}

void check_equal(const std::vector<Matrix<float>>& a, const std::vector<Matrix<float>>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(same_bits(a[i], b[i]));
}

/// A router that throws in its second call.
struct BreakingRouter {
  using Scalar = float;
  int* calls;
  Index outputs() const { return 4; }
  void forward(View<const float> x, View<float> logits) const {
    fill(logits, 0);
    if (++*calls == 2) throw std::runtime_error("broken");
    for (Index n = 0; n < x.rows(); ++n) logits(n, n % 4) = 1;
  }
};

/// A router with a backward that throws in its second call.
struct BreakingLinearRouter : LinearRouter<float> {
  using LinearRouter<float>::LinearRouter;
  int* calls = nullptr;
  void forward(View<const float> x, View<float> logits, auto call) const {
    if (++*calls == 2) throw std::runtime_error("broken");
    LinearRouter<float>::forward(x, logits, call);
  }
};

}  // namespace

TEST_CASE("A backward without its forward is refused, and changes nothing", "[layer]") {
  auto c = small();
  auto work = c.layer.workspace(8);
  const auto refused = [&](auto&& call) {
    const auto gradients = c.gradients;
    const Matrix<float> d_x = c.d_x;
    CHECK(code_of(call) == ErrorCode::order);
    CHECK(same_bits(c.d_x, d_x));
    CHECK(same_bits(c.gradients.router.weight, gradients.router.weight));
    CHECK(same_bits(c.gradients.experts.lora_A, gradients.experts.lora_A));
    CHECK(same_bits(c.gradients.experts.lora_B, gradients.experts.lora_B));
  };
  refused([&] { c.backward(work); });  // nothing before it
  c.forward(work);
  c.backward(work);
  refused([&] { c.backward(work); });  // the second one
  c.layer.route(c.x, work);
  refused([&] { c.backward(work); });  // the experts have not been applied
  refused([&] { c.layer.apply_backward(c.x, work.routing, c.d_y, work.d_gate(), {}, c.gradients, work); });
  c.forward(work);
  const Matrix<float> copy = c.x;
  refused([&] { c.layer.backward(copy, c.d_y, c.d_x, c.gradients, work); });  // another x, though of the same numbers
  const auto other = c.layer;
  refused([&] { other.backward(c.x, c.d_y, c.d_x, c.gradients, work); });  // another layer
  c.layer.forward(copy, c.y, work);
  refused([&] { c.backward(work); });  // something else came between
  c.forward(work);
  c.layer.apply_backward(c.x, work.routing, c.d_y, work.d_gate(), {}, c.gradients, work);
  refused([&] { c.layer.apply_backward(c.x, work.routing, c.d_y, work.d_gate(), {}, c.gradients, work); });
  c.layer.route_backward(c.x, {}, c.gradients, work);
  refused([&] { c.layer.route_backward(c.x, {}, c.gradients, work); });
  c.forward(work);
  c.layer.route_backward(c.x, {}, c.gradients, work);
  refused([&] { c.backward(work); });  // the router has had its half
}

TEST_CASE("A recomputed forward may be followed by a backward again", "[layer]") {
  auto c = small();
  auto work = c.layer.workspace(8);
  const auto expected = c.step(work);
  set_zero(c.gradients);
  c.d_x.set_zero();
  c.layer.recompute(c.x, work, {.training = true, .seed = 3});
  c.backward(work);
  check_equal({c.y, c.d_x, c.gradients.router.weight, c.gradients.experts.lora_A, c.gradients.experts.lora_B},
              expected);
}

TEST_CASE("A workspace may move between forward and backward", "[layer]") {
  auto c = small();
  auto work = c.layer.workspace(8), own = c.layer.workspace(8);
  const auto expected = c.step(own);
  set_zero(c.gradients);
  c.d_x.set_zero();
  c.forward(work);
  auto moved = std::move(work);
  c.backward(moved);
  CHECK(same_bits(c.gradients.router.weight, expected[2]));
}

TEST_CASE("A routing from outside that was filled anew is not that of forward", "[layer]") {
  auto c = small();
  ExpertLinear layer(c.layer.experts(), c.layer.base());
  auto work = layer.workspace(8);
  auto gradients = layer.gradients();
  auto routing = Routing<float>::from_dense(random_matrix<float>(8, 4, 3));
  layer.apply(c.x, routing, c.y, work);
  std::ranges::reverse(routing.gates());
  routing.finish();  // as many pairs, in the same memory
  CHECK(code_of([&] { layer.apply_backward(c.x, routing, c.d_y, {}, {}, gradients, work); }) == ErrorCode::order);
}

TEST_CASE("Gradients of another layer are refused", "[layer]") {
  auto c = small();
  auto work = c.layer.workspace(8);
  for (const support::LayerSizes& sizes :
       {support::LayerSizes{.rank = 2}, {.rank = 9}, {.in = 12}, {.out = 12}, {.experts = 5}}) {
    auto others = support::routed_layer<float>(sizes, support::top_2(), Simd<>{}).gradients();
    c.forward(work);
    CHECK(code_of([&] { c.layer.backward(c.x, c.d_y, c.d_x, others, work); }) == ErrorCode::shape);
  }
  auto transposed = c.layer.gradients();
  transposed.experts.lora_A = Matrix<float>(11, 12);  // as many numbers
  CHECK(code_of([&] { c.layer.backward(c.x, c.d_y, c.d_x, transposed, work); }) == ErrorCode::shape);
  auto of_base = c.layer.gradients({.base = true});
  of_base.base.weight = Matrix<float>(11, 13);
  CHECK(code_of([&] { c.layer.backward(c.x, c.d_y, c.d_x, of_base, work); }) == ErrorCode::shape);
  CHECK_NOTHROW(c.backward(work));  // a refused call uses nothing up
}

TEST_CASE("A result in the memory of what is read is refused", "[layer]") {
  auto c = Case(support::routed_layer<float>({.in = 12, .out = 12}, support::top_2(), Simd<>{}));
  auto work = c.layer.workspace(8);
  CHECK(code_of([&] { c.layer.forward(c.x, c.x, work); }) == ErrorCode::shape);
  Matrix<float> wide(9, 12);
  const View<float> first = wide.view().top(8), later = wide.view().middle_rows(1, 8);
  CHECK(code_of([&] { c.layer.forward(first, later, work); }) == ErrorCode::shape);
  Matrix<float> side_by_side(8, 24);  // columns of one matrix share no element
  CHECK_NOTHROW(c.layer.forward(side_by_side.view().middle_cols(0, 12), side_by_side.view().middle_cols(12, 12), work));
  CHECK(code_of([&] {
          c.layer.forward(side_by_side.view().middle_cols(0, 12), side_by_side.view().middle_cols(11, 12), work);
        }) == ErrorCode::shape);
  c.forward(work);
  CHECK(code_of([&] { c.layer.backward(c.x, c.d_y, c.x, c.gradients, work); }) == ErrorCode::shape);
  CHECK(code_of([&] { c.layer.backward(c.x, c.d_y, c.d_y, c.gradients, work); }) == ErrorCode::shape);
}

TEST_CASE("One workspace serves layers of other width, dropout, rank and shared experts, bit for bit", "[layer]") {
  using Layer = decltype(support::routed_layer<float>({}, support::top_2(), Simd<>{}));
  const auto gate = [](Index shared) { return Gate{Softmax{}, TopK{2}, Renormalized{}, shared}; };
  std::vector<Case<Layer>> cases;
  cases.emplace_back(support::routed_layer<float>({}, gate(0), Simd<>{}));
  cases.emplace_back(support::routed_layer<float>({.in = 40, .dropout = 0.5}, gate(0), Simd<>{}), 5);
  cases.emplace_back(support::routed_layer<float>({.out = 50, .experts = 9, .rank = 17}, gate(2), Simd<>{}), 7);
  cases.emplace_back(support::routed_layer<float>({.experts = 3, .rank = 1, .dropout = 0.1}, gate(1), Simd<>{}));
  auto joint = joint_workspace(8, cases[0].layer, cases[1].layer, cases[2].layer, cases[3].layer);
  for (int round = 0; round < 3; ++round)
    for (std::size_t i : {0u, 1u, 2u, 3u, 1u, 0u, 0u, 2u}) {
      auto own = cases[i].layer.workspace(8);
      CAPTURE(round, i);
      check_equal(cases[i].step(joint), cases[i].step(own));
    }
}

TEST_CASE("A workspace of a smaller layer is refused before anything is written, and stays of use", "[layer]") {
  auto c = small();
  auto larger = Case(support::routed_layer<float>({.in = 64, .dropout = 0.5}, support::top_2(), Simd<>{}));
  auto work = c.layer.workspace(8);
  fill(larger.y.view(), 5);
  const Matrix<float> before = larger.y;
  CHECK(code_of([&] { larger.forward(work); }) == ErrorCode::capacity);
  CHECK(same_bits(larger.y, before));
  auto own = c.layer.workspace(8);
  check_equal(c.step(work), c.step(own));
  auto bigger = larger.layer.workspace(8);  // has room for the smaller one
  check_equal(c.step(bigger), c.step(own));
}

TEST_CASE("A workspace adapts to a layer whose experts have grown, or throws", "[layer]") {
  Rng rng(1);
  Matrix<float> weight = random_matrix<float>(13, 11, 1);
  auto layer = moram({.ranks = {4}, .k = 2}, DenseBase{weight}, rng);
  const auto x = random_matrix<float>(8, 11, 2);
  Matrix<float> y(8, 13);
  auto work = layer.workspace(8);
  layer.forward(x, y, work);
  next_task(layer, 60, rng);
  CHECK(code_of([&] { layer.forward(x, y, work); }) == ErrorCode::capacity);
  auto larger = layer.workspace(8);
  CHECK_NOTHROW(layer.forward(x, y, larger));
}

TEST_CASE("A call that a role breaks leaves an empty trace", "[layer]") {
  Rng rng(5);
  int calls = 0;
  const MixtureLinear layer(BreakingRouter{&calls}, support::top_2(),
                            LowRank<DenseFactors<float>>({.in = 11, .out = 13, .experts = 4}, rng),
                            NoBase<float>(11, 13));
  auto work = layer.workspace(8);
  const auto x = random_matrix<float>(8, 11, 8), few = random_matrix<float>(2, 11, 8);
  Matrix<float> y(8, 13);
  layer.forward(few, y.view().top(2), work);
  CHECK_THROWS_AS(layer.forward(x, y, work), std::runtime_error);
  CHECK(work.tokens() == 0);
  CHECK(work.routing.pairs() == 0);
  CHECK(load_balance(work) == 0);
  CHECK_NOTHROW(layer.forward(x, y, work));
}

TEST_CASE("A forward that a role breaks leaves nothing to a backward, not even the forward before it", "[layer]") {
  auto c = small();
  int calls = 0;
  const auto forward = [&calls](View<const float>, View<float> y) {
    if (++calls == 2) throw std::runtime_error("broken");
    fill(y, 0);
  };
  const ExpertLinear layer(c.layer.experts(), callable_base<float>(11, 13, forward));
  auto work = layer.workspace(8);
  auto gradients = layer.gradients();
  const auto routing = Routing<float>::from_dense(random_matrix<float>(8, 4, 3));
  layer.apply(c.x, routing, c.y, work);
  CHECK_THROWS_AS(layer.apply(c.x, routing, c.y, work), std::runtime_error);
  CHECK(code_of([&] { layer.apply_backward(c.x, routing, c.d_y, {}, {}, gradients, work); }) == ErrorCode::order);
}

TEST_CASE("A routing that a role breaks leaves nothing to a backward, though nobody was routed before either",
          "[layer]") {
  Rng rng(5);
  int calls = 0;
  BreakingLinearRouter router({.in = 11, .experts = 4}, rng);
  router.calls = &calls;
  auto c = Case(MixtureLinear(router, support::top_2(),
                              LowRank<DenseFactors<float>>({.in = 11, .out = 13, .experts = 4}, rng),
                              NoBase<float>(11, 13)));
  const std::vector<std::uint8_t> nobody(8, 0);
  auto work = c.layer.workspace(8);
  c.layer.forward(c.x, c.y, work, {.routed = nobody});
  CHECK_THROWS_AS(c.layer.forward(c.x, c.y, work, {.routed = nobody}), std::runtime_error);
  CHECK(code_of([&] { c.backward(work); }) == ErrorCode::order);
}

TEST_CASE("Gradients of other experts are refused by the half that a router of the latent takes to them", "[layer]") {
  Rng rng(5);
  const auto c = Case(MixtureLinear(LatentRouter<float>(4), support::top_2(),
                                    LowRank<DenseFactors<float>>({.in = 11, .out = 13, .experts = 4, .rank = 1}, rng),
                                    NoBase<float>(11, 13)));
  auto work = c.layer.workspace(8);
  auto gradients = c.gradients;
  gradients.experts.lora_A = Matrix<float>(4, 12);
  c.layer.route(c.x, work);
  CHECK(code_of([&] { c.layer.route_backward(c.x, {}, gradients, work); }) == ErrorCode::shape);
}

TEST_CASE("A latent of another call leaves the router without a backward", "[layer]") {
  Rng rng(5);
  auto c = Case(MixtureLinear(
      LatentRouter<float>(4), support::top_2(),
      LowRank<DenseFactors<float>>({.in = 11, .out = 13, .experts = 4, .rank = 1, .dropout = {.rate = 0.5}}, rng),
      NoBase<float>(11, 13)));
  auto work = c.layer.workspace(8);
  const auto few = Routing<float>::from_dense(random_matrix<float>(4, 4, 3));
  const Pass pass{.training = true, .seed = 3}, other{.training = true, .seed = 4};
  const auto code_after = [&](auto&& apply) {
    c.layer.route(c.x, work, pass);
    apply();
    return code_of([&] { c.layer.route_backward(c.x, {}, c.gradients, work); });
  };
  CHECK(code_after([&] { c.layer.apply(c.x, work.routing, c.y, work, pass); }) == std::nullopt);
  CHECK(code_after([&] { c.layer.apply(c.x, work.routing, c.y, work, other); }) == ErrorCode::order);
  CHECK(code_after([&] { c.layer.apply(c.x.view().top(4), few, c.y.view().top(4), work, pass); }) == ErrorCode::order);
}

TEST_CASE("A routing from outside has no backward after its workspace has routed anew", "[layer]") {
  auto c = small();
  auto work = c.layer.workspace(8, 32);
  const auto routing = Routing<float>::from_dense(random_matrix<float>(8, 4, 3));
  c.layer.apply(c.x, routing, c.y, work);
  c.layer.route(c.x, work);
  CHECK(code_of([&] { c.layer.apply_backward(c.x, routing, c.d_y, {}, {}, c.gradients, work); }) == ErrorCode::order);
}

TEST_CASE("An x whose rows lie elsewhere than those of forward is refused", "[layer]") {
  auto c = small();
  auto work = c.layer.workspace(8);
  const auto wide = random_matrix<float>(8, 24, 4);
  const View<const float> apart(wide.data(), 8, 11, 24), together(wide.data(), 8, 11);  // of one first row
  c.layer.forward(apart, c.y, work);
  CHECK(code_of([&] { c.layer.backward(together, c.d_y, c.d_x, c.gradients, work); }) == ErrorCode::order);
  CHECK_NOTHROW(c.layer.backward(apart, c.d_y, c.d_x, c.gradients, work));
}

TEST_CASE("An x of fewer columns than that of forward is refused, though it begins at the same place", "[layer]") {
  auto c = small();
  auto work = c.layer.workspace(8);
  const auto wide = random_matrix<float>(8, 24, 4);
  Matrix<float> d_x(8, 10);
  c.layer.forward(wide.view().middle_cols(0, 11), c.y, work);
  CHECK(code_of([&] { c.layer.backward(wide.view().middle_cols(0, 10), c.d_y, d_x, c.gradients, work); }) ==
        ErrorCode::shape);
}

TEST_CASE("A single row has no distance between rows that could differ", "[layer]") {
  auto c = small();
  auto work = c.layer.workspace(8);
  const auto first = c.x.view().top(1);
  c.layer.forward(View<const float>(first.data(), 1, 11, 11), c.y.view().top(1), work);
  CHECK_NOTHROW(
      c.layer.backward(View<const float>(first.data(), 1, 11, 30), c.d_y.view().top(1), {}, c.gradients, work));
}

TEST_CASE("A layer whose parts have changed in size since forward refuses its backward", "[layer]") {
  Rng rng(5);
  const auto layer_of = [&](Index rank, Index hidden) {
    return MixtureLinear(MlpRouter<float>({.in = 11, .hidden = hidden, .experts = 4}, rng), support::top_2(),
                         LowRank<DenseFactors<float>>({.in = 11, .out = 13, .experts = 4, .rank = rank}, rng),
                         NoBase<float>(11, 13));
  };
  const auto code_after = [&](auto change) {
    Case c(layer_of(6, 5));
    auto work = c.layer.workspace(8);
    c.forward(work);
    change(c.layer);
    c.gradients = c.layer.gradients();
    const auto code = code_of([&] { c.backward(work); });
    c.forward(work);
    return code;
  };
  CHECK(code_after([](auto& layer) { layer.router(), layer.experts(); }) == std::nullopt);
  CHECK(code_after([&](auto& layer) { layer.experts() = layer_of(2, 5).experts(); }) == ErrorCode::order);
  CHECK(code_after([&](auto& layer) { layer.router() = layer_of(6, 3).router(); }) == ErrorCode::order);
  CHECK(code_after([&](auto& layer) { layer = layer_of(5, 5); }) == ErrorCode::order);
}

TEST_CASE("Another routing in the memory of the one before is not that of forward", "[layer]") {
  auto c = small();
  const ExpertLinear layer(c.layer.experts(), c.layer.base());
  auto work = layer.workspace(8);
  auto gradients = layer.gradients();
  Routing<float> routing;
  const auto refill = [&](Index shift) {
    Matrix<float> gates(8, 4);
    for (Index n = 0; n < 8; ++n) gates(n, (n + shift) % 4) = 1;
    routing = Routing<float>::from_dense(gates);
  };
  const auto backward = [&](const Routing<float>& of) {
    return code_of([&] { layer.apply_backward(c.x, of, c.d_y, {}, c.d_x, gradients, work); });
  };
  refill(0);
  layer.apply(c.x, routing, c.y, work);
  refill(1);
  CHECK(backward(routing) == ErrorCode::order);
  const Routing<float> copy = routing;
  layer.apply(c.x, routing, c.y, work);
  routing.start(4);
  CHECK(backward(routing) == ErrorCode::order);  // begun anew
  CHECK(backward(copy) == std::nullopt);         // the same pairs, elsewhere
}

TEST_CASE("What one half of another call takes from a workspace, the backward of the first does not use", "[layer]") {
  Rng rng(5);
  const auto c = Case(MixtureLinear(LatentRouter<float>(4), support::top_2(),
                                    LowRank<DenseFactors<float>>({.in = 11, .out = 13, .experts = 4, .rank = 1}, rng),
                                    NoBase<float>(11, 13)));
  const auto x = random_matrix<float>(8, 11, 9);
  const auto routing = Routing<float>::from_dense(random_matrix<float>(8, 4, 3));
  Matrix<float> y(8, 13);
  auto gradients = c.gradients;
  auto work = c.layer.workspace(8, 32);
  const auto route_backward = [&] { return code_of([&] { c.layer.route_backward(c.x, {}, gradients, work); }); };
  c.layer.apply(c.x, routing, y, work);
  c.layer.route(x, work);
  CHECK(code_of([&] { c.layer.apply_backward(c.x, routing, c.d_y, {}, {}, gradients, work); }) == ErrorCode::order);
  c.layer.route(c.x, work);
  c.layer.apply(x, routing, y, work);
  CHECK(route_backward() == ErrorCode::order);
  c.layer.route(c.x, work);
  c.layer.apply(c.x, work.routing, y, work, {.training = true});
  CHECK(route_backward() == ErrorCode::order);
  c.layer.route(c.x, work);
  c.layer.apply(c.x, routing, y, work);  // of the same latent
  CHECK(route_backward() == std::nullopt);
}

TEST_CASE("A call of no tokens has no place in memory that a backward could miss", "[layer]") {
  auto c = small();
  auto work = c.layer.workspace(8);
  c.layer.forward(c.x.view().top(0), c.y.view().top(0), work);
  CHECK_NOTHROW(c.layer.backward(c.x.view().middle_rows(3, 0), c.d_y.view().top(0), {}, c.gradients, work));
}

TEST_CASE("AnyLinear refuses a backward of another forward", "[layer]") {
  AnyLinear<float> any(support::routed_layer<float>({}, support::top_2()), 10);
  const auto x = random_matrix<float>(10, 11, 1), other = random_matrix<float>(10, 11, 3),
             d_y = random_matrix<float>(10, 13, 2);
  Matrix<float> y(10, 13), d_x(10, 11);
  any.forward(x, y);
  any.forward(other, y);  // as an evaluation between forward and backward does
  CHECK(code_of([&] { any.backward(x, d_y, d_x); }) == ErrorCode::order);
  any.backward(other, d_y, d_x);
  CHECK(code_of([&] { any.backward(other, d_y, d_x); }) == ErrorCode::order);
}

TEST_CASE("Gradients are not asked of a base that has none", "[layer]") {
  Rng rng(1);
  const Matrix<float> weight(13, 11);
  const auto borrowed = lora({}, DenseBase{weight}, rng);
  CHECK(code_of([&] { borrowed.gradients({.base = true}); }) == ErrorCode::not_trainable);
  CHECK(code_of([&] { lora({}, PackedBase(weight), rng).gradients({.base = true}); }) == ErrorCode::not_trainable);
  CHECK_NOTHROW(lora({}, DenseBase{Matrix<float>(13, 11)}, rng).gradients({.base = true}));
}

TEST_CASE("A backward follows the dropout of apply(), though route() had another pass", "[layer]") {
  const auto layer = support::routed_layer<double>({.dropout = 0.5}, support::top_2(), Simd<>{});
  const auto x = random_matrix<double>(8, 11, 1), d_y = random_matrix<double>(8, 13, 2);
  for (bool trained : {false, true}) {
    const Pass of_route{.training = trained, .seed = 3}, of_apply{.training = !trained, .seed = 4};
    Matrix<double> y(8, 13), d_x(8, 11), by_halves(8, 11);
    auto work = layer.workspace(8);
    auto gradients = layer.gradients(), of_halves = layer.gradients();
    layer.route(x, work, of_route);
    layer.apply(x, work.routing, y, work, of_apply);
    layer.backward(x, d_y, d_x, gradients, work);
    layer.route(x, work, of_route);
    layer.apply(x, work.routing, y, work, of_apply);
    layer.apply_backward(x, work.routing, d_y, work.d_gate(), by_halves, of_halves, work);
    layer.route_backward(x, by_halves, of_halves, work);
    CHECK(support::largest_difference(d_x, by_halves) < 1e-13);
  }
}
