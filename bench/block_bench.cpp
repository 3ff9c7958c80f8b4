// SPDX-License-Identifier: MIT
// What whole feed-forward blocks as experts cost, beside the block without experts and beside the obvious loop.
//
//   forward/<block>/E:8/k:2/T:<tokens>/d:512/h:1376, forward_backward/...   one thread, float
//
//   mixlora   LoRA of rank 8 on the three maps of one frozen gated block (packed bases)
//   full      experts with weights of their own, as in Mixtral
//
// Counters, each the ratio of times in alternating slices:
//   over_plain   over one block of that size: mixlora's frozen block, or, of full experts, one expert for all tokens
//   over_loop    over a loop over the experts: the rows of x that chose one are gathered and go through three linear
//                layers (with their LoRA), and y is scattered; with the same routing
//   ideal        what over_plain would be, were both as fast as the machine at multiply-adds
#include "bench/layers/last_made.hpp"
#include "bench/machine/alternation.hpp"
#include "bench/machine/clock.hpp"
#include "mole/base/packed_base.hpp"
#include "mole/method/lora.hpp"
#include "mole/method/mixlora.hpp"
#include "mole/method/mixtral.hpp"
#include "tests/support/random_matrix.hpp"

#include <benchmark/benchmark.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace {

using mole::Index;
using mole::Matrix;
using mole::View;
using T = float;

constexpr Index d = 512, h = 1376, experts = 8, chosen = 2, rank = 8;

const mole::PackedBase<T>& packed(Index in, Index out) {
  static const mole::PackedBase<T> in_base(support::random_matrix<T>(h, d, 1, 0.05)),
      out_base(support::random_matrix<T>(d, h, 2, 0.05));
  return in == d && out == h ? in_base : out_base;
}

/// ---- linear maps of up to so many rows: what a block without this library is made of
struct FrozenMap {
  FrozenMap(Index in, Index out, Index) : base(packed(in, out)) {}

  void forward(View<const T> x, View<T> y) { base.forward(x, y, call()); }
  void backward(View<const T> x, View<const T> d_y, View<T> d_x) {
    mole::NoParameters none;
    base.backward(x, d_y, d_x, none, call());
  }
  mole::Call<mole::Simd<>, mole::NoScratch> call() { return {execution, pass, scratch}; }

  mole::PackedBase<T> base;
  mole::Simd<> execution;
  mole::Pass pass;
  mole::NoScratch scratch;
};

struct AdaptedMap {
  using Layer = decltype(mole::lora({}, packed(d, h), std::declval<mole::Rng&>()));

  AdaptedMap(Index in, Index out, Index rows)
      : layer(make(in, out)), work(layer.workspace(rows)), gradients(layer.gradients()) {}
  static Layer make(Index in, Index out) {
    mole::Rng rng(1);
    Layer layer = mole::lora({.rank = rank}, packed(in, out), rng);
    fill_uniform(layer.experts().parameters().lora_B.view(), 0.1, rng);
    return layer;
  }

  void forward(View<const T> x, View<T> y) { layer.forward(x, y, work); }
  void backward(View<const T> x, View<const T> d_y, View<T> d_x) { layer.backward(x, d_y, d_x, gradients, work); }

  Layer layer;
  Layer::Workspace work;
  Layer::Gradients gradients;
};

struct DenseMap {
  DenseMap(Index in, Index out, Index) : weight(support::random_matrix<T>(out, in, 3, 0.05)), gradient(out, in) {}

  void forward(View<const T> x, View<T> y) { execution.product_nt(x, weight, y); }
  void backward(View<const T> x, View<const T> d_y, View<T> d_x) {
    mole::add_outer_products(d_y, x, gradient.view(), execution);
    execution.product_nn(d_y, weight, d_x);
  }

  Matrix<T> weight, gradient;
  mole::Simd<> execution;
};

/// ---- down(silu(gate x) o up x)
template <class Map>
struct Block {
  explicit Block(Index rows)
      : gate(d, h, rows), up(d, h, rows), down(h, d, rows), g(rows, h), u(rows, h), a(rows, h), d_a(rows, h) {}

  void forward(View<const T> x, View<T> y) {
    const View<T> gs = g.view().top(x.rows()), us = u.view().top(x.rows()), as = a.view().top(x.rows());
    gate.forward(x, gs);
    up.forward(x, us);
    for (Index n = 0; n < x.rows(); ++n)
      for (Index i = 0; i < h; ++i) as(n, i) = silu.value(gs(n, i)) * us(n, i);
    down.forward(View<const T>(as), y);
  }
  void backward(View<const T> x, View<const T> d_y, View<T> d_x) {
    const View<T> gs = g.view().top(x.rows()), us = u.view().top(x.rows()), as = a.view().top(x.rows()),
                  d_as = d_a.view().top(x.rows());
    fill(d_as, T(0));
    down.backward(View<const T>(as), d_y, d_as);
    for (Index n = 0; n < x.rows(); ++n)
      for (Index i = 0; i < h; ++i) {
        const T z = gs(n, i), dz = d_as(n, i);
        gs(n, i) = dz * us(n, i) * silu.derivative(z);
        us(n, i) = dz * silu.value(z);
      }
    gate.backward(x, View<const T>(gs), d_x);
    up.backward(x, View<const T>(us), d_x);
  }

  mole::SiLU silu;
  Map gate, up, down;
  Matrix<T> g, u, a, d_a;
};

struct Tensors {
  explicit Tensors(Index tokens)
      : x(support::random_matrix<T>(tokens, d, 5)),
        d_y(support::random_matrix<T>(tokens, d, 6)),
        y(tokens, d),
        d_x(tokens, d) {}

  Matrix<T> x, d_y, y, d_x;
};

template <class Map>
struct Alone : Tensors {
  explicit Alone(Index tokens) : Tensors(tokens), block(tokens) {}

  void forward() { block.forward(x, y.view()); }
  void backward() { block.backward(x, d_y, d_x.view()); }

  Block<Map> block;
};

/// The experts of a block, whose layer routes, one after the other.
template <class Layer, class Map>
struct Loop : Tensors {
  Loop(const Layer& layer_, Index tokens)
      : Tensors(tokens),
        layer(layer_),
        work(layer.workspace(tokens)),
        gradients(layer.gradients({.experts = false})),
        rows(tokens, d),
        d_rows(tokens, d),
        of_expert(tokens * chosen, d) {
    for (Index e = 0; e < experts; ++e) blocks.push_back(std::make_unique<Block<Map>>(tokens));
  }

  void forward() {
    layer.route(x, work);
    y.set_zero();
    for_each_expert([&](Index e, std::span<const int> pairs, View<T> from, View<T> to) {
      gather(pairs, x, from);
      blocks[std::size_t(e)]->forward(View<const T>(from), to);
      for (std::size_t i = 0; i < pairs.size(); ++i)
        mole::detail::add_scaled(work.routing.gate(pairs[i]), to.row_data(Index(i)),
                                 y.view().row_data(work.routing.token(pairs[i])), d);
    });
  }
  void backward() {
    d_x.set_zero();
    for_each_expert([&](Index e, std::span<const int> pairs, View<T> from, View<T> of_pairs) {
      const View<T> d_from = d_rows.view().top(from.rows());
      for (std::size_t i = 0; i < pairs.size(); ++i) {
        const std::span<const T> d_out = d_y.view().row(work.routing.token(pairs[i]));
        work.d_gate()[std::size_t(pairs[i])] = mole::detail::dot(d_out.data(), of_pairs.row_data(Index(i)), d);
        for (std::size_t j = 0; j < d_out.size(); ++j)
          of_pairs(Index(i), Index(j)) = work.routing.gate(pairs[i]) * d_out[j];
      }
      gather(pairs, x, from);
      fill(d_from, T(0));
      blocks[std::size_t(e)]->backward(View<const T>(from), View<const T>(of_pairs), d_from);
      for (std::size_t i = 0; i < pairs.size(); ++i)
        mole::detail::add_scaled(1, d_from.row_data(Index(i)), d_x.view().row_data(work.routing.token(pairs[i])), d);
    });
    layer.route_backward(x, d_x.view(), gradients, work);
  }

  void gather(std::span<const int> pairs, const Matrix<T>& from, View<T> to) const {
    for (std::size_t i = 0; i < pairs.size(); ++i)
      std::ranges::copy(from.view().row(work.routing.token(pairs[i])), to.row(Index(i)).begin());
  }
  template <class F>
  void for_each_expert(F f) {
    Index first = 0;
    for (Index e = 0; e < experts; ++e) {
      const std::span<const int> pairs = work.routing.pairs_of(e);
      const auto count = Index(pairs.size());
      if (count > 0) f(e, pairs, rows.view().top(count), of_expert.view().middle_rows(first, count));
      first += count;
    }
  }

  Layer layer;
  typename Layer::Workspace work;
  typename Layer::Gradients gradients;
  Matrix<T> rows, d_rows, of_expert;
  std::vector<std::unique_ptr<Block<Map>>> blocks;
};

template <class Layer>
struct Mixture : Tensors {
  Mixture(const Layer& layer_, Index tokens)
      : Tensors(tokens), layer(layer_), work(layer.workspace(tokens)), gradients(layer.gradients()) {}

  void forward() { layer.forward(x, y, work); }
  void backward() { layer.backward(x, d_y, d_x, gradients, work); }

  Layer layer;
  typename Layer::Workspace work;
  typename Layer::Gradients gradients;
};

auto mixlora_block() {
  mole::Rng rng(4);
  auto layer = mole::mixlora({.experts = experts, .k = chosen, .rank = rank, .dropout = 0}, packed(d, h), packed(d, h),
                             packed(h, d), rng);
  layer.for_each_tensor([&](std::string_view, View<T> tensor) { fill_uniform(tensor, 0.1, rng); });
  return layer;
}
auto full_block() {
  mole::Rng rng(4);
  auto layer = mole::mixtral<T>({.in = d, .hidden = h, .experts = experts, .k = chosen}, rng);
  fill_uniform(layer.router().parameters().weight.view(), 0.1, rng);
  return layer;
}

struct Bodies {
  std::function<void()> mixture, plain, loop;
};

template <class Setting>
std::function<void()> body(std::shared_ptr<Setting> setting, bool backward) {
  return [setting, backward] {
    setting->forward();
    if (backward) setting->backward();
  };
}
template <class Map, class Plain, class Layer>
Bodies bodies_of(const Layer& layer, Index tokens, bool backward) {
  const auto made = [&](auto setting) {
    setting->forward();
    return body(setting, backward);
  };
  Bodies bodies{made(std::make_shared<Mixture<Layer>>(layer, tokens)), made(std::make_shared<Alone<Plain>>(tokens)),
                made(std::make_shared<Loop<Layer, Map>>(layer, tokens))};
  for (const auto& each : {bodies.mixture, bodies.plain, bodies.loop}) each();
  return bodies;
}

/// Multiply-adds of a mixture over those of its plain block: products with the bases of gate and up are shared.
double ideal(bool full, bool backward) {
  const double map = double(d * h), lora = double(rank * (d + h)), k = double(chosen), router = double(experts * d);
  if (full) return backward ? (9 * k * map + 3 * router) / (9 * map) : (3 * k * map + router) / (3 * map);
  const double forward = (2 + k) * map + 3 * k * lora + router, back = (2 + k) * map + 6 * k * lora + 2 * router;
  return backward ? (forward + back) / (6 * map) : forward / (3 * map);
}

void run(benchmark::State& state, bool full, Index tokens, bool backward) {
  static bench::LastMade<Bodies> last;
  const Bodies& bodies = last.get(std::to_string(full) + std::to_string(backward) + std::to_string(tokens), [&] {
    return full ? bodies_of<DenseMap, DenseMap>(full_block(), tokens, backward)
                : bodies_of<AdaptedMap, FrozenMap>(mixlora_block(), tokens, backward);
  });
  const double begin = bench::thread_clock();
  for (auto _ : state) bodies.mixture();
  const double slice = (bench::thread_clock() - begin) / 5;
  state.counters["over_plain"] = bench::alternating_ratio(bodies.mixture, bodies.plain, slice);
  state.counters["over_loop"] = bench::alternating_ratio(bodies.mixture, bodies.loop, slice);
  state.counters["ideal"] = ideal(full, backward);
}

[[maybe_unused]] const bool registered = [] {
  for (const bool backward : {false, true})
    for (const bool full : {false, true})
      for (const Index tokens : {16, 256, 1024})
        benchmark::RegisterBenchmark(
            ((backward ? "forward_backward/" : "forward/") + std::string(full ? "full" : "mixlora") +
             "/E:8/k:2/T:" + std::to_string(tokens) + "/d:512/h:1376")
                .c_str(),
            run, full, tokens, backward);
  return true;
}();

}  // namespace
