// SPDX-License-Identifier: MIT
// Feed-forward blocks whose three projections share one routing: llava-mole, sparse and dense.
#include "golden/methods.hpp"
#include "golden/parameters.hpp"
#include "mole/loss/load_balance.hpp"

#include <cmath>

namespace golden {
namespace {

/// One projection of the block: a layer that takes its routing from outside.
template <class T, class Execution>
class Projection {
 public:
  Projection(const Comparison<T>& file, const std::string& name, Index tokens, Execution execution)
      : names_(file, name + "."),
        layer_(names_.load(file), mole::DenseBase(file.matrix("base." + name + ".weight")), execution),
        work_(layer_.workspace(tokens)),
        gradients_(layer_.gradients()) {}

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

/// down(silu(gate(x)) * up(x)), routed once on x. The router sits in a layer whose experts are not used.
template <class T, class Gating, class Execution>
void check_block(Comparison<T>& file, Gating gating, Execution execution) {
  const Matrix<T> x = file.matrix("x"), d_y = file.matrix("grad_y");
  const Index tokens = x.rows();
  const std::vector<Index> starts = sequence_starts(file);
  const mole::Pass pass{.sequence_begin = starts};
  const auto unused = ExpertFiles<T>(file, "gate_proj.").load(file);
  mole::MixtureLinear router(load_router(file), gating, unused, mole::NoBase<T>(unused.in(), unused.out()), execution);
  auto work = router.workspace(tokens);
  auto gradients = router.gradients();
  Projection<T, Execution> gate(file, "gate_proj", tokens, execution), up(file, "up_proj", tokens, execution),
      down(file, "down_proj", tokens, execution);

  router.route(x, work, pass);
  const Matrix<T> g = gate.forward(x, work.routing), u = up.forward(x, work.routing);
  Matrix<T> product(tokens, g.cols());
  const auto sigmoid = [](T v) { return 1 / (1 + std::exp(-v)); };
  for (Index n = 0; n < tokens; ++n)
    for (Index i = 0; i < g.cols(); ++i) product(n, i) = g(n, i) * sigmoid(g(n, i)) * u(n, i);
  file.expect("y", down.forward(product, work.routing));
  expect_gate<T>(file, work);

  Matrix<T> d_product(tokens, g.cols()), d_g(tokens, g.cols()), d_u(tokens, g.cols()), d_x(tokens, x.cols());
  down.backward(product, work.routing, d_y, work.d_gate(), d_product);
  for (Index n = 0; n < tokens; ++n)
    for (Index i = 0; i < g.cols(); ++i) {
      const T s = sigmoid(g(n, i));
      d_g(n, i) = d_product(n, i) * u(n, i) * (s + g(n, i) * s * (1 - s));
      d_u(n, i) = d_product(n, i) * g(n, i) * s;
    }
  gate.backward(x, work.routing, d_g, work.d_gate(), d_x);
  up.backward(x, work.routing, d_u, work.d_gate(), d_x);
  router.route_backward(x, d_x, gradients, work);
  file.expect("grad_x", d_x);
  expect_router_gradients(file, "grad.", gradients.router);
  for (const auto* projection : {&gate, &up, &down}) projection->expect_gradients(file);

  set_zero(gradients);
  Matrix<T> d_x_of_loss(tokens, x.cols());
  router.route(x, work, pass);
  file.expect_number("loss.balance",
                     mole::load_balance(static_cast<mole::Trace<T>&>(work), {.norm = mole::BalanceNorm::without_experts,
                                                                             .count = mole::BalanceCount::first_choice,
                                                                             .scope = mole::BalanceScope::sequence}));
  router.route_backward(x, d_x_of_loss, gradients, work);
  file.expect_gradient("grad_loss.balance.x", d_x_of_loss);
  expect_router_gradients(file, "grad_loss.balance.", gradients.router);
  file.expect_all_compared();
}

}  // namespace

std::map<std::string, Method> block_methods() {
  return {{"llava-mole", under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
             check_block(file, mole::Gate{mole::Softmax{}, mole::TopK{.k = 1}, mole::Unit{}}, execution);
           })},
          {"llava-mole-dense", under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
             check_block(file, mole::Gate{mole::Softmax{}, mole::All{}, mole::Raw{}}, execution);
           })}};
}

}  // namespace golden
