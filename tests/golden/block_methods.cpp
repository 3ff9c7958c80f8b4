// SPDX-License-Identifier: MIT
// Feed-forward blocks of three projections: with one routing for all three (llava-mole, sparse and dense), or as whole
// experts (mixlora, mixlora-dynamic, mixlora-switch).
#include "golden/methods.hpp"
#include "golden/routed_layers.hpp"
#include "mole/loss/router_z.hpp"

#include <cmath>
#include <span>

namespace golden {
namespace {

using mole::BalanceNorm;
using mole::LoadBalanceOptions;

/// One projection of the block: a layer that takes its routing from outside.
template <class T, class Execution>
class Projection {
 public:
  Projection(Comparison<T>& file, const std::string& name, Execution execution)
      : names_(file, name + "."),
        layer_(names_.load(file), load_base(file, name + "."), execution),
        work_(layer_.workspace(file.matrix("x").rows())),
        gradients_(layer_.gradients()) {}

  Index out() const { return layer_.out(); }
  Matrix<T> forward(const Matrix<T>& x, const mole::Routing<T>& routing) {
    Matrix<T> y(x.rows(), layer_.out());
    layer_.apply(x, routing, y, work_);
    return y;
  }
  void backward(const Matrix<T>& x, const mole::Routing<T>& routing, const Matrix<T>& d_y, std::span<T> d_gate,
                Matrix<T>& d_x) {
    layer_.apply_backward(x, routing, d_y, d_gate, d_x, gradients_, work_);
  }
  void expect_gradients(Comparison<T>& file) const {
    names_.expect_gradients(file, "grad.", layer_.experts(), gradients_.experts);
  }

 private:
  using Layer = mole::ExpertLinear<Experts<T>, mole::DenseBase<Matrix<T>>, Execution>;

  ExpertFiles<T> names_;
  Layer layer_;
  typename Layer::Workspace work_;
  typename Layer::Gradients gradients_;
};

/// down(silu(gate(x)) * up(x)), all three under one routing.
template <class T, class Execution>
class Block {
 public:
  Block(Comparison<T>& file, Execution execution)
      : gate_(file, "gate_proj", execution), up_(file, "up_proj", execution), down_(file, "down_proj", execution) {
    file.expect_option("d_ff", double(up_.out()));
  }

  Matrix<T> forward(const Matrix<T>& x, const mole::Routing<T>& routing) {
    g_ = gate_.forward(x, routing), u_ = up_.forward(x, routing);
    product_ = g_;
    for (Index n = 0; n < g_.rows(); ++n)
      for (Index i = 0; i < g_.cols(); ++i) product_(n, i) = g_(n, i) * sigmoid(g_(n, i)) * u_(n, i);
    return down_.forward(product_, routing);
  }
  void backward(const Matrix<T>& x, const mole::Routing<T>& routing, const Matrix<T>& d_y, std::span<T> d_gate,
                Matrix<T>& d_x) {
    Matrix<T> d_product(g_.rows(), g_.cols()), d_g = d_product, d_u = d_product;
    down_.backward(product_, routing, d_y, d_gate, d_product);
    for (Index n = 0; n < g_.rows(); ++n)
      for (Index i = 0; i < g_.cols(); ++i) {
        const T s = sigmoid(g_(n, i));
        d_g(n, i) = d_product(n, i) * u_(n, i) * (s + g_(n, i) * s * (1 - s));
        d_u(n, i) = d_product(n, i) * g_(n, i) * s;
      }
    gate_.backward(x, routing, d_g, d_gate, d_x);
    up_.backward(x, routing, d_u, d_gate, d_x);
  }
  void expect_gradients(Comparison<T>& file) const {
    for (const auto* projection : {&gate_, &up_, &down_}) projection->expect_gradients(file);
  }

 private:
  static T sigmoid(T v) { return 1 / (1 + std::exp(-v)); }

  Projection<T, Execution> gate_, up_, down_;
  Matrix<T> g_, u_, product_;
};

/// One routing for the three projections, from a layer whose experts are not used.
template <class T, class Gating, class Execution>
class SharedRouting {
 public:
  SharedRouting(Comparison<T>& file, Gating gating, Execution execution)
      : layer(routing_layer(file, gating, execution, true)), block_(file, execution) {}

  void forward(const Matrix<T>& x, Matrix<T>& y, auto& work) { y = block_.forward(x, work.routing); }
  void backward(const Matrix<T>& x, const Matrix<T>& d_y, Matrix<T>& d_x, auto&, auto& work) {
    block_.backward(x, work.routing, d_y, work.d_gate(), d_x);
  }
  void expect_gradients(Comparison<T>& file, const auto&) const { block_.expect_gradients(file); }
  /// The release's indices are the likeliest experts, whoever is chosen.
  static void expect_choice(Comparison<T>& file, const mole::Trace<T>& trace) {
    std::vector<std::int64_t> likeliest;
    for (Index n = 0; n < trace.tokens(); ++n) {
      const auto scores = trace.scores().row(n);
      likeliest.push_back(std::ranges::max_element(scores) - scores.begin());
    }
    file.expect_optional("gate.indices", likeliest);
  }

  mole::MixtureLinear<mole::LinearRouter<T>, Gating, Experts<T>, mole::NoBase<T>, Execution> layer;

 private:
  Block<T, Execution> block_;
};

/// Experts that are whole blocks.
template <class T, class Gating, class Execution>
class WholeBlocks {
  using Blocks = mole::FeedForwardExperts<Experts<T>, mole::DenseBase<Matrix<T>>>;

 public:
  WholeBlocks(Comparison<T>& file, Gating gating, Execution execution)
      : layer(load_router(file), gating, blocks(file),
              mole::NoBase<T>(file.matrix("x").cols(), file.matrix("x").cols()), execution) {
    file.expect_option("d_ff", double(layer.experts().hidden()));
  }

  void forward(const Matrix<T>& x, Matrix<T>& y, auto& work) { layer.apply(x, work.routing, y, work); }
  void backward(const Matrix<T>& x, const Matrix<T>& d_y, Matrix<T>& d_x, auto& gradients, auto& work) {
    layer.apply_backward(x, work.routing, d_y, work.d_gate(), d_x, gradients, work);
  }
  void expect_gradients(Comparison<T>& file, const auto& gradients) const {
    const auto& blocks = layer.experts();
    for (const auto& [name, map, found] : {std::tuple{"gate_proj.", &blocks.gate(), &gradients.experts.gate},
                                           std::tuple{"up_proj.", &blocks.up(), &gradients.experts.up},
                                           std::tuple{"down_proj.", &blocks.down(), &gradients.experts.down}})
      ExpertFiles<T>(file, name).expect_gradients(file, "grad.", map->experts, found->experts);
  }
  static void expect_choice(Comparison<T>& file, const mole::Trace<T>& trace) {
    golden::expect_choice(file, trace.routing, trace.experts());
  }

  mole::MixtureLinear<mole::LinearRouter<T>, Gating, Blocks, mole::NoBase<T>, Execution> layer;

 private:
  static Blocks blocks(Comparison<T>& file) {
    const auto map = [&](const char* name) {
      return mole::ExpertProjection(ExpertFiles<T>(file, name).load(file), load_base(file, name));
    };
    return {map("gate_proj."), map("up_proj."), map("down_proj.")};
  }
};

template <template <class, class, class> class Use, class T, class Gating, class Execution>
void check_block(Comparison<T>& file, Gating gating, Execution execution, const LoadBalanceOptions& balance,
                 bool dropped_pass = false) {
  const Matrix<T> x = load_x(file);
  const std::vector<Index> starts = sequence_starts(file, x.rows());
  const mole::Pass pass{.sequence_begin = starts};
  Use<T, Gating, Execution> block(file, gating, execution);
  auto& layer = block.layer;
  auto work = layer.workspace(x.rows());
  Matrix<T> y(x.rows(), x.cols());
  layer.route(x, work, pass);
  block.forward(x, y, work);
  const DroppedTokens<T> dropped(work, dropped_pass);
  dropped.add_inputs(x, y);
  file.expect("y", y);
  expect_scores<T>(file, work);
  block.expect_choice(file, work);
  if (dropped_pass) dropped.expect_first_choices(file);
  if (file.has("grad_y")) {
    auto gradients = layer.gradients();
    Matrix<T> d_x(x.rows(), x.cols());
    block.backward(x, file.matrix("grad_y"), d_x, gradients, work);
    dropped.add_gradients(x, file.matrix("grad_y"), d_x, work);
    layer.route_backward(x, d_x, gradients, work);
    file.expect("grad_x", d_x);
    expect_router_gradients(file, "grad.", gradients.router);
    block.expect_gradients(file, gradients);
  }
  expect_balance(file, layer, work, pass, balance);
  expect_loss(file, "z", layer, work, pass, [](mole::Trace<T>& trace) { return mole::router_z(trace); });
  expect_loss(file, "router", layer, work, pass,
              [&](mole::Trace<T>& trace) { return mole::router_z(trace) + mole::load_balance(trace, balance); });
}

Method llava_mole() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const LoadBalanceOptions balance{.norm = BalanceNorm::without_experts,
                                     .count = mole::BalanceCount::first_choice,
                                     .scope = mole::BalanceScope::sequence};
    if (file.flag("dense", file.text("method") == "llava-mole-dense"))
      check_block<SharedRouting>(file, mole::Gate{mole::Softmax{}, mole::All{}, mole::Raw{}}, execution, balance);
    else
      check_block<SharedRouting>(file, mole::Gate{mole::Softmax{}, mole::TopK{.k = 1}, mole::Unit{}}, execution,
                                 balance);
  });
}

constexpr LoadBalanceOptions k_at_uniform{.norm = BalanceNorm::k_at_uniform};

Method mixlora() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    check_block<WholeBlocks>(file,
                             mole::Gate{mole::Softmax{}, mole::TopK{.k = file.integer("top_k")}, mole::Renormalized{}},
                             execution, k_at_uniform);
  });
}

Method mixlora_dynamic() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    check_block<WholeBlocks>(file, mole::Gate{mole::Softmax{}, mole::TopP{.p = file.number("top_p")}, mole::Raw{}},
                             execution, k_at_uniform);
  });
}

/// A token that its expert has no capacity for passes.
Method mixlora_switch() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const mole::CapacityOptions capacity{.fixed = file.integer("capacity"), .per_sequence = true};
    check_block<WholeBlocks>(file,
                             mole::Gate{mole::Softmax{}, mole::ExpertCapacity{mole::TopK{1}, capacity}, mole::Raw{}},
                             execution, {.count = mole::BalanceCount::first_choice}, true);
  });
}

}  // namespace

std::map<std::string, Method> block_methods() {
  return {{"llava-mole", llava_mole()},
          {"llava-mole-dense", llava_mole()},
          {"mixlora", mixlora()},
          {"mixlora-dynamic", mixlora_dynamic()},
          {"mixlora-switch", mixlora_switch()}};
}

}  // namespace golden
