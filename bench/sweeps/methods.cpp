// SPDX-License-Identifier: MIT
// The sweep over methods: what every kind of factors and of maps costs beside a plain LoRA.
//
//   forward/sweep_method/<adapter>/r:<rank>/T:<tokens>/d:<d>, forward_backward/...   one thread, float, a packed base
//
// Counter over_lora:   the time over that of a LoRA of as many ranks, in alternating slices. What computes A or B from
// other parameters does so once a call, whatever T is: see T:1 and T:512.
#include "bench/layers/frozen_layer.hpp"
#include "bench/layers/last_made.hpp"
#include "bench/machine/alternation.hpp"
#include "bench/machine/clock.hpp"
#include "mole/expert/biased_experts.hpp"
#include "mole/method/adalora.hpp"
#include "mole/method/compressed_experts.hpp"
#include "mole/method/dora.hpp"
#include "mole/method/flylora.hpp"
#include "mole/method/loha.hpp"
#include "mole/method/lokr.hpp"
#include "mole/method/lora.hpp"
#include "mole/method/mofme.hpp"
#include "mole/method/mola.hpp"
#include "mole/method/moram.hpp"
#include "mole/method/mos.hpp"
#include "mole/method/mtl_lora.hpp"
#include "mole/method/nola.hpp"
#include "mole/method/oft.hpp"
#include "mole/method/one_adapter.hpp"
#include "mole/method/poly.hpp"
#include "mole/method/randlora.hpp"
#include "mole/method/smora.hpp"
#include "mole/method/sora.hpp"
#include "mole/method/vblora.hpp"
#include "mole/method/vera.hpp"

#include <benchmark/benchmark.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace {

using bench::FrozenLayer;
using mole::Index;
using mole::Matrix;

/// Calls of one layer on tensors of its own; copies share them.
struct Calls {
  std::function<void()> forward, forward_backward;
};

/// A layer with everything that a call of it needs. One without a router serves two tasks, in turns of four tokens.
template <class Layer>
Calls calls_of(Layer layer_, Index tokens, Index d) {
  static constexpr bool routed = requires(Layer & layer) {
    layer.router();
  };
  struct Setting {
    Setting(Layer l, Index tokens, Index d)
        : layer(std::move(l)),
          work(layer.workspace(tokens)),
          gradients(layer.gradients()),
          x(support::random_matrix<float>(tokens, d, 1)),
          d_y(support::random_matrix<float>(tokens, d, 2)),
          y(tokens, d),
          d_x(tokens, d) {
      mole::Rng rng(4);  // parameters that have learned something
      layer.for_each_tensor([&](std::string_view, mole::View<float> tensor) { fill_uniform(tensor, 0.1, rng); });
      std::vector<int> task(std::size_t(tokens), 0);
      for (std::size_t n = 0; n < task.size(); ++n) task[n] = int(n / 4 % 2);
      if constexpr (!routed) tasks = mole::Routing<float>::from_labels(task, layer.experts().experts());
    }
    void forward() {
      if constexpr (routed)
        layer.forward(x, y, work);
      else
        layer.apply(x, tasks, y, work);
    }
    void backward() {
      if constexpr (routed)
        layer.backward(x, d_y, d_x, gradients, work);
      else
        layer.apply_backward(x, tasks, d_y, {}, d_x, gradients, work);
    }

    Layer layer;
    typename Layer::Workspace work;
    typename Layer::Gradients gradients;
    Matrix<float> x, d_y, y, d_x;
    mole::Routing<float> tasks;
  };
  const auto setting = std::make_shared<Setting>(std::move(layer_), tokens, d);
  return {[setting] { setting->forward(); },
          [setting] {
            setting->forward();
            setting->backward();
          }};
}

/// An adapter, and the ranks of the LoRA that it stands beside: its own, or those that serve a token.
struct Adapter {
  const char* name;
  Index rank;
  Calls (*make)(Index tokens, Index d, mole::Rng& rng);
};

auto base(Index d) {
  return FrozenLayer::of(d).base;
}

constexpr Index rank = 8;

const Adapter adapters[] = {
    {"loha", rank,
     [](Index tokens, Index d, mole::Rng& rng) {
       return calls_of(mole::loha({.rank = rank}, base(d), rng), tokens, d);
     }},
    {"loha_of_its_ranks", rank* rank,
     [](Index tokens, Index d, mole::Rng& rng) {
       return calls_of(mole::loha({.rank = rank}, base(d), rng), tokens, d);
     }},
    {"lokr", rank,
     [](Index tokens, Index d, mole::Rng& rng) {
       return calls_of(mole::lokr({.rank = rank}, base(d), rng), tokens, d);
     }},
    {"adalora", rank,
     [](Index tokens, Index d, mole::Rng& rng) {
       return calls_of(mole::adalora({.rank = rank}, base(d), rng), tokens, d);
     }},
    {"dora", rank,
     [](Index tokens, Index d, mole::Rng& rng) {
       return calls_of(mole::dora({.rank = rank}, FrozenLayer::of(d).weight, base(d), rng), tokens, d);
     }},
    {"vera", rank,
     [](Index tokens, Index d, mole::Rng& rng) {
       return calls_of(mole::vera({}, mole::FrozenPair<float>::random(rank, d, d, rng), base(d), rng), tokens, d);
     }},
    {"nola", rank,
     [](Index tokens, Index d, mole::Rng& rng) {
       return calls_of(mole::nola({.rank = rank, .bases = 64, .keep = true}, base(d), rng), tokens, d);
     }},
    {"nola_anew", rank,
     [](Index tokens, Index d, mole::Rng& rng) {
       return calls_of(mole::nola({.rank = rank, .bases = 64}, base(d), rng), tokens, d);
     }},
    {"mos", rank,
     [](Index tokens, Index d, mole::Rng& rng) {
       using Pool = mole::ShardPool<float>;
       const auto pool = std::make_shared<Pool>(
           Pool::Options{
               .in = d, .out = d, .layers = 4, .pool_rank = 4 * rank, .rank = rank, .private_rank = 2, .shards = 4},
           rng);
       return calls_of(mole::mos({}, pool, base(d), rng), tokens, d);
     }},
    {"vblora", rank,
     [](Index tokens, Index d, mole::Rng& rng) {
       using Bank = mole::VectorBank<float>;
       const auto bank = std::make_shared<Bank>(Bank::Options{.vectors = 256, .length = 256}, rng);
       return calls_of(mole::vblora({.rank = rank}, bank, base(d), rng), tokens, d);
     }},
    {"randlora", rank,
     [](Index tokens, Index d, mole::Rng& rng) {
       const auto bases = std::make_shared<const mole::DiagonalBases<float>>(
           mole::DiagonalBases<float>::Options{.rank = 32, .small_side = d, .large_side = d});
       return calls_of(mole::randlora({}, bases, base(d), rng), tokens, d);
     }},
    {"lora_bias", rank,
     [](Index tokens, Index d, mole::Rng& rng) {
       mole::LowRank<mole::DenseFactors<float>> experts({.in = d, .out = d, .rank = rank, .alpha = 16}, rng);
       return calls_of(mole::one_adapter(mole::BiasedExperts(std::move(experts)), base(d), mole::Simd<>{}), tokens, d);
     }},
    {"sora", rank,
     [](Index tokens, Index d, mole::Rng& rng) {
       return calls_of(mole::sora({.rank = rank}, base(d), rng), tokens, d);
     }},
    {"oft", rank,
     [](Index tokens, Index d, mole::Rng& rng) {
       return calls_of(mole::oft({}, FrozenLayer::of(d).weight, base(d), rng), tokens, d);
     }},
    {"poly", rank,
     [](Index tokens, Index d, mole::Rng& rng) {
       return calls_of(mole::poly({.rank = rank}, base(d), rng), tokens, d);
     }},
    {"mtl_lora", rank,
     [](Index tokens, Index d, mole::Rng& rng) {
       return calls_of(mole::mtl_lora({.rank = rank}, base(d), rng), tokens, d);
     }},
    // Routed, beside a LoRA of the ranks that serve a token.
    {"mola_1_of_8", rank,
     [](Index tokens, Index d, mole::Rng& rng) {
       return calls_of(mole::mola({.experts = 8, .rank = rank, .k = 1}, base(d), rng), tokens, d);
     }},
    {"compressed_experts_2_of_8", 2 * rank,
     [](Index tokens, Index d, mole::Rng& rng) {
       return calls_of(mole::compressed_experts({.rank = rank}, base(d), rng), tokens, d);
     }},
    {"mofme_2_of_8", 2 * rank,
     [](Index tokens, Index d, mole::Rng& rng) {
       return calls_of(mole::mofme({.form = mole::ModulationForm::low_rank, .rank = rank}, base(d), rng), tokens, d);
     }},
    {"smora_8_of_64", rank,
     [](Index tokens, Index d, mole::Rng& rng) {
       return calls_of(mole::smora({.rank = 64, .k = rank}, base(d), rng), tokens, d);
     }},
    {"flylora_8_of_32", rank,
     [](Index tokens, Index d, mole::Rng& rng) {
       return calls_of(mole::flylora({.rank = 32, .k = rank}, base(d), rng), tokens, d);
     }},
    {"moram_8_of_32", rank,
     [](Index tokens, Index d, mole::Rng& rng) {
       return calls_of(mole::moram({.ranks = {32}, .k = rank}, base(d), rng), tokens, d);
     }},
};

void run(benchmark::State& state, const Adapter& adapter, Index tokens, Index d, bool backward) {
  static bench::LastMade<Calls> last, last_lora;
  const std::string size = std::to_string(tokens) + " x " + std::to_string(d);
  const auto body = [&](const Calls& calls) { return backward ? calls.forward_backward : calls.forward; };
  const auto made = [&](auto make) {
    return [&, make] {
      mole::Rng rng(1);
      Calls calls = make(rng);
      body(calls)();
      return calls;
    };
  };
  const Calls& own = last.get(adapter.name + size, made([&](mole::Rng& rng) { return adapter.make(tokens, d, rng); }));
  const Calls& lora = last_lora.get(std::to_string(adapter.rank) + " of " + size, made([&](mole::Rng& rng) {
                                      return calls_of(mole::lora({.rank = adapter.rank}, base(d), rng), tokens, d);
                                    }));
  const double begin = bench::thread_clock();
  for (auto _ : state) body(own)();
  const double seconds = (bench::thread_clock() - begin) / double(state.iterations());
  const double slice = seconds * double(state.iterations()) / 5;
  state.counters["over_lora"] = bench::alternating_ratio(body(own), body(lora), slice);
}

[[maybe_unused]] const bool registered = [] {
  for (const Adapter& adapter : adapters)
    for (const bool backward : {false, true})
      for (const Index d : {768, 2048})
        for (const Index tokens : {1, 16, 512})
          benchmark::RegisterBenchmark(
              ((backward ? "forward_backward/sweep_method/" : "forward/sweep_method/") + std::string(adapter.name) +
               "/r:" + std::to_string(adapter.rank) + "/T:" + std::to_string(tokens) + "/d:" + std::to_string(d))
                  .c_str(),
              run, adapter, tokens, d, backward);
  return true;
}();

}  // namespace
