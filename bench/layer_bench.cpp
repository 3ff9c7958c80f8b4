// SPDX-License-Identifier: MIT
// What adapters cost on top of a frozen linear layer: compare each name with that of plain at the same T and d.
#include "bench/support/counters.hpp"
#include "bench/support/seconds_per_run.hpp"
#include "mole/method/lora.hpp"
#include "mole/method/loramoe.hpp"
#include "mole/method/mola.hpp"
#include "tests/support/random_matrix.hpp"

namespace {

using T = float;
using mole::Index;
using mole::Matrix;

constexpr Index rank = 16, experts = 8;

/// What a layer of d inputs and d outputs does: E experts behind a router (0: no router), of which a token meets K.
struct Shape {
  Index tokens, d, routed, adapters, chosen;

  double base() const { return double(d * d); }
  /// Parameters that a token meets beside the base: the router's, and those of its experts.
  double touched() const { return double(routed * d + chosen * 2 * rank * d); }
  /// ... and that the batch meets.
  double read() const { return double(routed * d + std::min(adapters, tokens * chosen) * 2 * rank * d); }
  double activations() const { return double(tokens * d); }

  /// A parameter is two operations a token in forward. In backward the base gives d_x, an adapter d_x and its gradient.
  support::Work forward() const {
    return {double(tokens), 2.0 * double(tokens) * (base() + touched()),
            sizeof(T) * (base() + read() + 2 * activations())};
  }
  support::Work forward_backward() const {
    return {double(tokens), 2.0 * double(tokens) * (2 * base() + 3 * touched()),
            sizeof(T) * (2 * base() + 4 * read() + 6 * activations())};
  }
};

/// Counters, and `ideal`: the time over that of plain, were both as fast as the machine.
void report(benchmark::State& state, const support::Work& work, const support::Work& plain, double seconds) {
  support::set_counters<T>(state, work, seconds);
  state.counters["ideal"] = work.flops / plain.flops;
}

/// Tokens, weight and gradients of all layers: x, y, d_x, d_y [T x d], weight [d x d].
struct Tensors {
  explicit Tensors(const benchmark::State& state)
      : tokens(state.range(0)),
        d(state.range(1)),
        x(support::random_matrix<T>(tokens, d, 1)),
        y(tokens, d),
        d_x(tokens, d),
        d_y(support::random_matrix<T>(tokens, d, 2)),
        weight(support::random_matrix<T>(d, d, 3)) {}

  Index tokens, d;
  Matrix<T> x, y, d_x, d_y, weight;
};

struct OneLora {
  static Shape shape(Index tokens, Index d) { return {tokens, d, 0, 1, 1}; }
  static auto layer(Index d, mole::View<const T> weight, mole::Rng& rng) {
    return mole::lora<T>({.in = d, .out = d, .rank = rank}, weight, rng);
  }
};
struct Top2 {
  static Shape shape(Index tokens, Index d) { return {tokens, d, experts, experts, 2}; }
  static auto layer(Index d, mole::View<const T> weight, mole::Rng& rng) {
    return mole::mola<T>({.in = d, .out = d, .experts = experts, .rank = rank, .k = 2, .dropout = 0}, weight, rng);
  }
};
struct Dense {
  static Shape shape(Index tokens, Index d) { return {tokens, d, experts, experts, experts}; }
  static auto layer(Index d, mole::View<const T> weight, mole::Rng& rng) {
    return mole::loramoe<T>({.in = d, .out = d, .experts = experts, .rank = rank, .dropout = 0}, weight, rng);
  }
};

/// A layer whose B has learned something.
template <class Method>
auto trained_layer(const Tensors& t) {
  mole::Rng rng(4);
  auto layer = Method::layer(t.d, t.weight, rng);
  mole::fill_uniform(layer.experts().parameters().lora_B.view(), 1, rng);
  return layer;
}

template <class Method>
void forward(benchmark::State& state) {
  Tensors t(state);
  const auto layer = trained_layer<Method>(t);
  auto work = layer.workspace(t.tokens);
  const double seconds = support::seconds_per_run(state, [&] { layer.forward(t.x, t.y, work); });
  const Shape shape = Method::shape(t.tokens, t.d), plain{t.tokens, t.d, 0, 0, 0};
  report(state, shape.forward(), plain.forward(), seconds);
}

template <class Method>
void forward_backward(benchmark::State& state) {
  Tensors t(state);
  const auto layer = trained_layer<Method>(t);
  auto work = layer.workspace(t.tokens);
  auto gradients = layer.gradients();
  const double seconds = support::seconds_per_run(state, [&] {
    layer.forward(t.x, t.y, work);
    layer.backward(t.x, t.d_y, t.d_x, gradients, work);
  });
  const Shape shape = Method::shape(t.tokens, t.d), plain{t.tokens, t.d, 0, 0, 0};
  report(state, shape.forward_backward(), plain.forward_backward(), seconds);
}

/// The base's products alone: what the host had before.
void plain_forward(benchmark::State& state) {
  Tensors t(state);
  const mole::DefaultExecution execution;
  const double seconds = support::seconds_per_run(state, [&] { execution.product_nt<T>(t.x, t.weight, t.y); });
  const Shape plain{t.tokens, t.d, 0, 0, 0};
  report(state, plain.forward(), plain.forward(), seconds);
}
void plain_forward_backward(benchmark::State& state) {
  Tensors t(state);
  const mole::DefaultExecution execution;
  const double seconds = support::seconds_per_run(state, [&] {
    execution.product_nt<T>(t.x, t.weight, t.y);
    execution.product_nn<T>(t.d_y, t.weight, t.d_x);
  });
  const Shape plain{t.tokens, t.d, 0, 0, 0};
  report(state, plain.forward_backward(), plain.forward_backward(), seconds);
}

void sizes(benchmark::internal::Benchmark* family) {
  family->ArgNames({"T", "d"})->ArgsProduct({{1, 16, 64, 512}, {128, 768}});
}

BENCHMARK(plain_forward)->Name("forward/plain")->Apply(sizes);
BENCHMARK(forward<OneLora>)->Name("forward/lora/r:16")->Apply(sizes);
BENCHMARK(forward<Top2>)->Name("forward/mixture/E:8/k:2/r:16")->Apply(sizes);
BENCHMARK(forward<Dense>)->Name("forward/mixture/E:8/k:8/r:16")->Apply(sizes);

BENCHMARK(plain_forward_backward)->Name("forward_backward/plain")->Apply(sizes);
BENCHMARK(forward_backward<OneLora>)->Name("forward_backward/lora/r:16")->Apply(sizes);
BENCHMARK(forward_backward<Top2>)->Name("forward_backward/mixture/E:8/k:2/r:16")->Apply(sizes);
BENCHMARK(forward_backward<Dense>)->Name("forward_backward/mixture/E:8/k:8/r:16")->Apply(sizes);

}  // namespace
