// SPDX-License-Identifier: MIT
// HMoRA, whose gates mix those of a token's router and of its task's router: hmora.
#include "golden/methods.hpp"
#include "golden/routed_layers.hpp"
#include "mole/loss/routing_divergence.hpp"

#include <cmath>
#include <optional>

namespace golden {
namespace {

/// One linear map with a bias, or two with a ReLU between.
template <class T>
mole::LinearRouter<T> load_hmora_router(const Comparison<T>& file, const std::string& name, std::false_type) {
  mole::Rng rng;
  const auto map = load_linear(file, name + ".0");
  mole::LinearRouter<T> router({.in = map.weight.cols(), .experts = map.weight.rows(), .bias = true}, rng);
  router.parameters() = map;
  return router;
}
template <class T>
mole::MlpRouter<T> load_hmora_router(const Comparison<T>& file, const std::string& name, std::true_type) {
  mole::Rng rng;
  const auto hidden = load_linear(file, name + ".0"), output = load_linear(file, name + ".1");
  mole::MlpRouter<T> router(
      {.in = hidden.weight.cols(), .hidden = hidden.weight.rows(), .experts = output.weight.rows()}, rng);
  router.parameters() = {hidden, output};
  return router;
}

/// Probabilities over the experts for each row of an input.
template <class T, class Router, class Execution>
class Probabilities {
 public:
  Probabilities(const Router& router, std::string name, Matrix<T> input, const Execution& execution)
      : name_(std::move(name)),
        input_(std::move(input)),
        layer_(router, mole::Gate{mole::Softmax{}, mole::All{}, mole::Raw{}}, unused(router.in(), router.outputs()),
               mole::NoBase<T>(router.in(), 1), execution),
        work_(layer_.workspace(input_.rows())) {}

  void route(const mole::Pass& pass = {}) { layer_.route(input_, work_, pass); }
  mole::Trace<T>& trace() { return work_; }
  /// From what is in the trace; an empty d_input is not wanted.
  void expect_gradients(Comparison<T>& file, const std::string& prefix, Matrix<T>& d_input) {
    auto gradients = layer_.gradients();
    layer_.route_backward(input_, d_input, gradients, work_);
    const auto expect = [&](const std::string& map, const mole::LinearParameters<T>& of_map) {
      file.expect_gradient(prefix + name_ + map + ".weight", of_map.weight);
      file.expect_gradient(prefix + name_ + map + ".bias", of_map.bias);
    };
    if constexpr (requires { gradients.router.hidden; }) {
      expect(".0", gradients.router.hidden);
      expect(".1", gradients.router.output);
    } else {
      expect(".0", gradients.router);
    }
  }

  static Experts<T> unused(Index in, Index experts) {
    mole::Rng rng;
    return Experts<T>({.in = in, .out = 1, .experts = experts, .rank = 1}, rng);
  }

 private:
  using Layer = mole::MixtureLinear<Router, mole::Gate<mole::Softmax, mole::All, mole::Raw>, Experts<T>,
                                    mole::NoBase<T>, Execution>;

  std::string name_;
  Matrix<T> input_;
  Layer layer_;
  typename Layer::Workspace work_;
};

/// gate = (1 - a) p + a t, a = sigmoid(alpha), of the token's p and the t of its sequence's task; t alone on request,
/// p alone without a task.
template <class T>
struct TaskMixture {
  explicit TaskMixture(const Comparison<T>& file)
      : has_task(file.flag("task_router")), task_only(file.flag("task_router_only")) {
    if (has_task && !task_only) share = 1 / (1 + std::exp(-file.matrix("router.alpha")(0, 0)));
    if (task_only) share = 1;
  }

  Matrix<T> forward(View<const T> p, View<const T> t) const {
    Matrix<T> mixed(p.rows(), p.cols());
    for (Index n = 0; n < p.rows(); ++n)
      for (Index e = 0; e < p.cols(); ++e)
        mixed(n, e) = (1 - share) * p(n, e) + (has_task ? share * t(n * t.rows() / p.rows(), e) : T(0));
    return mixed;
  }
  /// Adds to d_p and d_t; returns d_alpha.
  T backward(View<const T> p, View<const T> t, const Matrix<T>& d_mixed, View<T> d_p, View<T> d_t) const {
    T d_share = 0;
    for (Index n = 0; n < p.rows(); ++n)
      for (Index e = 0; e < p.cols(); ++e) {
        d_p(n, e) += (1 - share) * d_mixed(n, e);
        if (!has_task) continue;
        const Index b = n * t.rows() / p.rows();
        d_t(b, e) += share * d_mixed(n, e);
        d_share += (t(b, e) - p(n, e)) * d_mixed(n, e);
      }
    return task_only ? T(0) : d_share * share * (1 - share);
  }

  bool has_task, task_only;
  T share = 0;
};

template <class T>
Experts<T> load_hmora_experts(Comparison<T>& file) {
  const Matrix<T> a = file.matrix("lora_A"), b = transposed(file.matrix("lora_B"));
  mole::Rng rng;
  Experts<T> experts({.in = a.cols(),
                      .out = b.cols(),
                      .experts = file.integer("experts"),
                      .rank = file.integer("rank"),
                      .alpha = file.number("alpha"),
                      .scaling = mole::Scaling::alpha_over_sqrt_rank,
                      .shared_down = file.flag("hydra")},
                     rng);
  experts.parameters().lora_A = a;
  experts.parameters().lora_B = b;
  expect_sizes(file, experts, file.integer("rank"));
  return experts;
}

/// The mixed gates are the scores of the gating; the k best of them go through one more softmax.
template <class T, class Gating, class TokenRouter, class Execution>
void check_hmora(Comparison<T>& file, const Gating& gating, const TokenRouter& token_router, Execution execution) {
  const Matrix<T> x = load_x(file);
  const auto flags = file.integers("attention_mask");
  const std::vector<std::uint8_t> mask(flags.begin(), flags.end());
  const mole::Pass counted{.token_mask = mask};
  Probabilities<T, TokenRouter, Execution> tokens(token_router, "router", x, execution);
  std::optional<Probabilities<T, mole::LinearRouter<T>, Execution>> task;
  const TaskMixture<T> mixture(file);
  if (mixture.has_task)
    task.emplace(load_hmora_router(file, "task_router", std::false_type{}), "task_router",
                 file.matrix("task.embedding"), execution);
  const Index experts = token_router.outputs();
  file.expect_option("experts", double(experts));
  mole::Rng rng;
  mole::LinearRouter<T> as_given({.in = experts, .experts = experts}, rng);
  as_given.parameters().weight.set_zero();
  for (Index e = 0; e < experts; ++e) as_given.parameters().weight(e, e) = 1;
  mole::MixtureLinear gate(as_given, gating, Probabilities<T, TokenRouter, Execution>::unused(experts, experts),
                           mole::NoBase<T>(experts, 1), execution);
  auto gate_work = gate.workspace(x.rows());
  const auto of_task = [&] { return task ? std::as_const(task->trace()).scores() : View<const T>{}; };
  Matrix<T> mixed;  // stays where it is between route() and its backward
  const auto route = [&] {
    tokens.route(counted);
    if (task) task->route();
    mixed = mixture.forward(std::as_const(tokens.trace()).scores(), of_task());
    gate.route(mixed, gate_work, counted);
  };
  /// From what is in the trace of the gating.
  const auto expect_routers = [&](const std::string& prefix, Matrix<T>& d_x) {
    Matrix<T> d_mixed(x.rows(), experts), none;
    auto unused = gate.gradients();
    gate.route_backward(mixed, d_mixed, unused, gate_work);
    const T d_alpha = mixture.backward(std::as_const(tokens.trace()).scores(), of_task(), d_mixed,
                                       tokens.trace().d_scores(), task ? task->trace().d_scores() : View<T>{});
    tokens.expect_gradients(file, prefix, d_x);
    if (task) task->expect_gradients(file, prefix, none);
    if (file.has("router.alpha")) file.expect_gradient(prefix + "router.alpha", View<const T>(&d_alpha, 1, 1));
  };

  const auto lora = load_hmora_experts(file);
  with_base(file, lora.in(), lora.out(), [&](auto base) {
    mole::ExpertLinear layer(lora, std::move(base), execution);
    auto work = layer.workspace(x.rows());
    route();
    if (task) file.expect_optional("task.weights", of_task());
    file.expect_optional("gate.dense", dense_weights(gate_work.routing, experts));
    Matrix<T> y(x.rows(), layer.out());
    layer.apply(x, gate_work.routing, y, work);
    file.expect("y", y);
    if (!file.has("grad_y")) return;
    auto gradients = layer.gradients();
    Matrix<T> d_x(x.rows(), x.cols());
    layer.apply_backward(x, gate_work.routing, file.matrix("grad_y"), gate_work.d_gate(), d_x, gradients, work);
    expect_routers("grad.", d_x);
    file.expect("grad_x", d_x);
    file.expect_gradient("grad.lora_A", gradients.experts.lora_A);
    file.expect_gradient("grad.lora_B", transposed(gradients.experts.lora_B));
  });

  const mole::RoutingDivergenceOptions options{.balanced = file.number("gamma_balance"),
                                               .certain = file.number("gamma_certain")};
  const auto expect_divergence = [&](const std::string& name, auto& probabilities, const mole::Pass& pass,
                                     Matrix<T> d_input) {
    if (!file.has("loss." + name)) return;
    probabilities.route(pass);
    file.expect_number("loss." + name, mole::routing_divergence(probabilities.trace(), options));
    probabilities.expect_gradients(file, "grad_loss." + name + ".", d_input);
    if (!d_input.empty()) file.expect_gradient("grad_loss." + name + ".x", d_input);
  };
  expect_divergence("divergence", tokens, counted, Matrix<T>(x.rows(), x.cols()));
  if (task) expect_divergence("task_divergence", *task, {}, {});
  if (!file.has("loss.load_balance")) return;
  // Who is chosen by the mixed gates, and how likely by the token's router alone.
  route();
  mole::Trace<T> both({.tokens = x.rows(), .pairs = gate_work.routing.pairs(), .experts = experts, .columns = experts});
  both.start(x.rows(), counted);
  copy(std::as_const(tokens.trace()).scores(), both.scores());
  both.routing = gate_work.routing;
  file.expect_number("loss.load_balance", mole::load_balance(both));
  copy(View<const T>(both.d_scores()), tokens.trace().d_scores());
  Matrix<T> d_x(x.rows(), x.cols());
  tokens.expect_gradients(file, "grad_loss.load_balance.", d_x);
  file.expect_gradient("grad_loss.load_balance.x", d_x);
  if (!task) return;
  // The release has gradients of 0 for what takes no part.
  const auto expect_none = [&](const std::string& name) {
    if (!file.has("grad_loss.load_balance." + name)) return;
    const Matrix<T> like = file.matrix(name);
    file.expect_gradient("grad_loss.load_balance." + name, Matrix<T>(like.rows(), like.cols()));
  };
  for (const char* name : {"router.alpha", "task_router.0.weight", "task_router.0.bias"}) expect_none(name);
}

Method hmora() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const bool two_maps = file.has("router.1.weight");
    file.expect_option("router_layers", two_maps ? 2 : 1);
    if (file.has("task.embedding"))
      file.expect_option("d_task", double(file.matrix("task.embedding").cols()));
    else
      file.ignore_option("d_task");
    const auto with_router = [&](const auto& gating) {
      if (two_maps)
        check_hmora(file, gating, load_hmora_router(file, "router", std::true_type{}), execution);
      else
        check_hmora(file, gating, load_hmora_router(file, "router", std::false_type{}), execution);
    };
    if (file.has_option("top_k"))
      with_router(mole::Gate{mole::Identity{}, mole::TopK{file.integer("top_k")}, mole::SoftmaxOverChosen{}});
    else
      with_router(mole::Gate{mole::Identity{}, mole::All{}, mole::Raw{}});
  });
}

}  // namespace

std::map<std::string, Method> hmora_methods() {
  return {{"hmora", hmora()}};
}

}  // namespace golden
