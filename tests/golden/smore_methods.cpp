// SPDX-License-Identifier: MIT
// S'MoRE's gate, noisy cosines of a network of x with keys, and its tree of residual experts: smore-gate,
// smore-combine.
#include "golden/methods.hpp"
#include "golden/routed_layers.hpp"
#include "mole/loss/importance_cv2.hpp"
#include "mole/loss/load_cv2.hpp"
#include "mole/loss/squared_cv.hpp"
#include "mole/router/chained_router.hpp"
#include "mole/router/deep_router.hpp"
#include "mole/router/noisy_router.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <numeric>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

namespace golden {
namespace {

template <class T>
mole::CosineRouter<T> load_keys(const Comparison<T>& file) {
  const Matrix<T> keys = file.matrix("keys");
  mole::Rng rng;
  mole::CosineRouter<T> router({.in = keys.cols(), .experts = keys.rows()}, rng);
  router.parameters().prototypes = keys;
  return router;
}

/// linear - tanh - linear.
template <class T>
mole::DeepRouter<T> load_query(Comparison<T>& file) {
  if (file.text("activation") != "tanh" && file.text("activation") != "relu") file.refuse("activation", "tanh or relu");
  const Matrix<T> down = file.matrix("router.0.weight"), up = file.matrix("router.1.weight");
  file.expect_option("hidden", double(down.rows()));
  mole::Rng rng;
  mole::DeepRouter<T> query(
      {.in = down.cols(),
       .experts = up.rows(),
       .widths = {down.rows()},
       .activation = file.text("activation") == "tanh" ? mole::RouterActivation::tanh : mole::RouterActivation::relu},
      rng);
  for (const std::size_t l : {0u, 1u}) query.parameters().layers[l] = load_linear(file, "router." + std::to_string(l));
  return query;
}

template <class T>
void expect_clean(Comparison<T>& file, const std::string& prefix,
                  const typename mole::CosineRouter<T>::Parameters& gradients) {
  file.expect_gradient(prefix + "keys", gradients.prototypes);
}
template <class T, class Chained>
requires requires(const Chained& gradients) {
  gradients.second;
}
void expect_clean(Comparison<T>& file, const std::string& prefix, const Chained& gradients) {
  expect_clean(file, prefix, gradients.second);
  for (const std::size_t l : {0u, 1u}) {
    const std::string name = prefix + "router." + std::to_string(l);
    file.expect_gradient(name + ".weight", gradients.first.layers[l].weight);
    file.expect_gradient(name + ".bias", gradients.first.layers[l].bias);
  }
}

template <class T>
void expect_row(Comparison<T>& file, const std::string& name, const std::vector<double>& found) {
  if (!file.has(name)) return;
  Matrix<T> row(1, Index(found.size()));
  std::ranges::transform(found, row.elements().begin(), [](double number) { return T(number); });
  file.expect(name, row);
}

/// What each expert is expected to serve: in training the probability that another draw of its noise would choose it,
/// otherwise the number of its tokens.
template <class T, class Scratch>
std::vector<double> load_of(mole::Trace<T>& trace, const Scratch& scratch, Index k) {
  const Index experts = trace.experts();
  const bool smooth = trace.pass.training && k < experts;
  std::vector<double> load(static_cast<std::size_t>(experts));
  for (Index n = 0; n < trace.tokens(); ++n) {
    if (!trace.pass.counts(n)) continue;
    if (!smooth) {
      for (std::size_t j = 0; j < std::size_t(k); ++j)
        load[std::size_t(trace.routing.experts_of(n)[j])] += trace.routing.gates_of(n)[j] > 0;
      continue;
    }
    const auto noisy = trace.logits().row(n);
    std::vector<T> order(noisy.begin(), noisy.end());
    std::ranges::sort(order, std::greater());
    for (Index e = 0; e < experts; ++e) {
      const T next = order[std::size_t(k)], threshold = noisy[std::size_t(e)] > next ? next : order[std::size_t(k) - 1];
      const double above = (double(scratch.clean(n, e)) - double(threshold)) / double(scratch.deviation(n, e));
      load[std::size_t(e)] += std::erfc(-above / std::numbers::sqrt2) / 2;
    }
  }
  return load;
}

/// The routing of a layer whose experts are not used.
template <class T, class Layer>
void expect_smore_gate(Comparison<T>& file, Layer layer, const Matrix<T>& x) {
  const Index k = layer.gating().select.k, experts = layer.router().outputs();
  file.expect_option("experts", double(experts));
  const auto flags = file.integers("attention_mask");
  const std::vector<std::uint8_t> mask(flags.begin(), flags.end());
  const mole::Pass pass{.training = file.flag("training"), .token_mask = mask};
  const Matrix<T> noise = file.matrix("noise");
  Matrix<T> d_clean(x.rows(), experts), d_deviation(x.rows(), experts);
  auto work = layer.workspace(x.rows());
  auto& scratch = work.router_scratch;
  scratch.carry = {.noise = noise, .d_clean = d_clean, .d_deviation = d_deviation};
  const auto expect_router = [&](const std::string& prefix, const auto& gradients) {
    expect_clean(file, prefix, gradients.router);
    file.expect_gradient(prefix + "noise.weight", gradients.noise);
  };

  layer.route(x, work, pass);
  expect_gate<T>(file, work);
  std::vector<double> importance(static_cast<std::size_t>(experts));
  for (Index p = 0; p < work.routing.pairs(); ++p)
    if (pass.counts(work.routing.token(p))) importance[std::size_t(work.routing.expert(p))] += work.routing.gate(p);
  expect_row(file, "importance", importance);
  const std::vector<double> load = load_of<T>(work, scratch, k);
  expect_row(file, "load", load);
  if (file.has("grad_gate")) {
    const Matrix<T> d_gate = file.matrix("grad_gate");  // of the slots of the file, in its order
    const auto chosen = file.integers("gate.indices");
    for (Index p = 0; p < work.routing.pairs(); ++p) {
      const Index n = work.routing.token(p);
      for (Index slot = 0; slot < k; ++slot)
        if (chosen[std::size_t(n * k + slot)] == work.routing.expert(p))
          work.d_gate()[std::size_t(p)] = d_gate(n, slot);
    }
    auto gradients = layer.gradients();
    Matrix<T> d_x(x.rows(), x.cols());
    layer.route_backward(x, d_x, gradients, work);
    file.expect("grad_x", d_x);
    expect_router("grad.", gradients.router);
  }

  const auto balance = [&](mole::Trace<T>& trace) {
    const double of_importance = mole::importance_cv2(trace);
    if (!pass.training || k == experts)  // counts, which have no gradient
      return of_importance +
             mole::SquaredCv::of(experts, true, 1e-10, [&](Index e) { return load[std::size_t(e)]; }).value();
    return of_importance + mole::load_cv2<T>(trace,
                                             {scratch.clean.top(x.rows()), scratch.deviation.top(x.rows()),
                                              d_clean.view(), d_deviation.view()},
                                             {.k = k});
  };
  expect_loss(file, "balance", layer, work, pass, balance, expect_router);
}

/// One expert has its noisy cosine as its gate, several the softmax of theirs.
Method smore_gate() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const Matrix<T> x = load_x(file);
    const mole::TopK select{file.integer("top_k")};
    const auto check = [&](auto clean) {
      mole::NoisyRouter router(std::move(clean), {.learned = true, .floor = file.number("noise_epsilon")});
      router.parameters().noise = file.matrix("noise.weight");
      mole::Rng rng;
      const Experts<T> unused({.in = x.cols(), .out = 1, .experts = router.outputs(), .rank = 1}, rng);
      const auto under = [&](auto gate) {
        expect_smore_gate(file, mole::MixtureLinear(router, gate, unused, mole::NoBase<T>(x.cols(), 1), execution), x);
      };
      if (select.k == 1) return under(mole::Gate{mole::Identity{}, select, mole::Raw{}});
      under(mole::Gate{mole::Softmax{}, select, mole::Renormalized{}});
    };
    if (file.text("arch") == "mlp") return check(mole::ChainedRouter(load_query(file), load_keys(file)));
    if (file.text("arch") != "linear") file.refuse("arch", "mlp or linear");
    for (const char* unused : {"hidden", "activation"}) file.ignore_option(unused);
    check(load_keys(file));
  });
}

/// One level of the tree, level 0 being the deepest. Node p is a child of node p / fanout of the level above, and has
/// one expert e of this level's pool:
///   z_p = s (B_e (A_e x + a_e) + b_e) + W h_p + w,   h_p [d] of the node's own children, none at level 0
/// With x followed by a 1, a_e is a column of A_e: a LoRA with a bias on both of its maps is BiasedExperts over
/// LowRank.
template <class T, class Execution>
class ResidualLevel {
  using Pool = mole::BiasedExperts<Experts<T>>;

 public:
  ResidualLevel(Comparison<T>& file, Index level, const Execution& execution)
      : name_("levels." + std::to_string(level) + "."),
        relu_(file.text("activation") == "relu"),
        layer_(load_layer(file, level, execution)),
        scores_(file.matrix(name_ + "scores")) {
    if (!relu_ && file.text("activation") != "identity") file.refuse("activation", "identity or relu");
    if (level > 0) mix_ = load_linear(file, name_ + "mix");
  }

  Index nodes() const { return scores_.size(); }

  /// h of the level above, whose nodes have fanout children each.
  Matrix<T> forward(Comparison<T>& file, const Matrix<T>& x, const Matrix<T>& below) {
    x_ = Matrix<T>(nodes(), x.cols() + 1), below_ = below;
    for (Index p = 0; p < nodes(); ++p) {
      std::ranges::copy(x.view().row(p * x.rows() / nodes()), x_.view().row(p).begin());
      x_(p, x.cols()) = 1;
    }
    const auto chosen = file.integers(name_ + "indices");
    if (Index(chosen.size()) != nodes()) throw std::runtime_error(name_ + "indices: expected as many as scores");
    const std::vector<int> experts(chosen.begin(), chosen.end());
    routing_ = mole::Routing<T>::from_labels(experts, layer_.experts().experts());
    work_.emplace(layer_.workspace(nodes()));
    z_ = Matrix<T>(nodes(), layer_.out());
    layer_.apply(x_, routing_, z_, *work_);
    if (!mix_.weight.empty()) {
      Matrix<T> mixed(nodes(), z_.cols());
      layer_.execution().linear(View<const T>(below), mix_.weights(), mixed.view());
      for (Index i = 0; i < z_.size(); ++i) z_.data()[i] += mixed.data()[i];
    }
    Matrix<T> above(parents_, z_.cols());
    for_each_score([&](Index p, Index parent) {
      for (Index i = 0; i < z_.cols(); ++i) above(parent, i) += score(p) * activated(z_(p, i));
    });
    return above;
  }

  /// Adds to d_x, and returns the gradient of what came from below.
  Matrix<T> backward(Comparison<T>& file, const Matrix<T>& d_above, Matrix<T>& d_x) {
    Matrix<T> d_z(nodes(), z_.cols()), d_scores(scores_.rows(), scores_.cols()), d_below(nodes(), below_.cols());
    for_each_score([&](Index p, Index parent) {
      for (Index i = 0; i < z_.cols(); ++i) {
        d_scores.data()[p] += d_above(parent, i) * activated(z_(p, i));
        d_z(p, i) = relu_ && z_(p, i) <= 0 ? T(0) : score(p) * d_above(parent, i);
      }
    });
    Matrix<T> d_rows(nodes(), x_.cols());
    auto gradients = layer_.gradients();
    layer_.apply_backward(x_, routing_, d_z, {}, d_rows, gradients, *work_);
    for (Index p = 0; p < nodes(); ++p)
      for (Index i = 0; i < d_x.cols(); ++i) d_x(p * d_x.rows() / nodes(), i) += d_rows(p, i);
    expect_pool(file, gradients.experts);
    file.expect_gradient("grad." + name_ + "scores", d_scores);
    if (mix_.weight.empty()) return d_below;
    auto d_mix = mole::zeros_like(mix_);
    d_mix.add_gradients(below_, d_z, layer_.execution());
    layer_.execution().linear_backward(View<const T>(d_z), mix_.weights(), d_below.view());
    file.expect_gradient("grad." + name_ + "mix.weight", d_mix.weight);
    file.expect_gradient("grad." + name_ + "mix.bias", d_mix.bias);
    return d_below;
  }

  /// `parents` nodes are above, h of `below` numbers comes from the level below.
  void connect(Comparison<T>& file, Index level, Index parents, Index below) {
    parents_ = parents;
    const auto& pool = layer_.experts();
    const Index rank = pool.unbiased().blocks().size(0);
    const auto expect = [&](const char* option, Index at, double found) {
      if (!file.has_option(option)) return;
      const std::vector<double> listed = file.list(option);
      if (at >= Index(listed.size()) || listed[std::size_t(at)] != found)
        file.refuse(option, std::to_string(found) + " of level " + std::to_string(level));
    };
    expect("ranks", level, double(rank));
    expect("pool_sizes", level, double(pool.experts()));
    expect("fanouts", level, double(nodes()) / double(parents));
    expect("level_dims", level, double(below));
    expect("level_dims", level + 1, double(below + pool.experts() * rank));
    if (nodes() % parents != 0 || pool.out() != below + pool.experts() * rank)
      throw std::runtime_error(name_ + "scores, lora_B: expected the sizes of the levels around it");
  }

 private:
  auto load_layer(const Comparison<T>& file, Index level, const Execution& execution) const {
    const Pool pool = load_pool(file, level);
    return mole::ExpertLinear(pool, mole::NoBase<T>(pool.in(), pool.out()), execution);
  }
  Pool load_pool(const Comparison<T>& file, Index level) const {
    const Matrix<T> a = file.matrix(name_ + "lora_A"), a_bias = file.matrix(name_ + "lora_A.bias"),
                    b = file.matrix(name_ + "lora_B"), b_bias = file.matrix(name_ + "lora_B.bias");
    const Index experts = a_bias.rows(), rank = a_bias.cols(), in = a.cols() / rank, out = b_bias.cols();
    if (a.rows() != experts || b_bias.rows() != experts || b.rows() != experts || b.cols() != out * rank)
      throw std::runtime_error(name_ + "lora_A, lora_B: expected a matrix of each expert");
    mole::Rng rng;
    Experts<T> pool({.in = in + 1,
                     .out = out,
                     .experts = experts,
                     .rank = rank,
                     .alpha = file.list("scalings").at(std::size_t(level)),
                     .scaling = mole::Scaling::fixed},
                    rng);
    for (Index r = 0; r < experts * rank; ++r) {
      for (Index i = 0; i < in; ++i) pool.parameters().lora_A(r, i) = a.data()[r * in + i];
      pool.parameters().lora_A(r, in) = a_bias.data()[r];
      for (Index o = 0; o < out; ++o) pool.parameters().lora_B(r, o) = b(r / rank, o * rank + r % rank);
    }
    Pool biased(pool);
    biased.bias() = b_bias;
    return biased;
  }
  void expect_pool(Comparison<T>& file, const mole::ParametersOf<Pool>& found) const {
    const Matrix<T>&a = found.experts.lora_A, &b = found.experts.lora_B;
    const Index in = a.cols() - 1, experts = found.bias.rows(), rank = a.rows() / experts;
    Matrix<T> weight(experts, rank * in), bias(experts, rank), up(experts, b.cols() * rank);
    for (Index r = 0; r < a.rows(); ++r) {
      for (Index i = 0; i < in; ++i) weight.data()[r * in + i] = a(r, i);
      bias.data()[r] = a(r, in);
      for (Index o = 0; o < b.cols(); ++o) up(r / rank, o * rank + r % rank) = b(r, o);
    }
    file.expect_gradient("grad." + name_ + "lora_A", weight);
    file.expect_gradient("grad." + name_ + "lora_A.bias", bias);
    file.expect_gradient("grad." + name_ + "lora_B", up);
    file.expect_gradient("grad." + name_ + "lora_B.bias", found.bias);
  }

  T activated(T z) const { return relu_ && z <= 0 ? T(0) : z; }
  T score(Index p) const { return scores_.data()[p]; }
  template <class F>
  void for_each_score(F f) const {
    for (Index p = 0; p < nodes(); ++p) f(p, p / (nodes() / parents_));
  }

  std::string name_;
  bool relu_ = false;
  mole::ExpertLinear<Pool, mole::NoBase<T>, Execution> layer_;
  mole::LinearParameters<T> mix_;
  Matrix<T> scores_;
  Index parents_ = 1;
  Matrix<T> x_, below_, z_;
  mole::Routing<T> routing_;
  std::optional<typename decltype(layer_)::Workspace> work_;
};

/// The scores of all levels are given. Where a node's activation is elsewhere than after the mix, or a PReLU, is not
/// known from these files.
Method smore_combine() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const Matrix<T> x = load_x(file);
    if (file.text("activation_position") != "all") file.refuse("activation_position", "all");
    const Index levels = file.integer("levels");
    if (!file.has("levels." + std::to_string(levels - 1) + ".scores") ||
        file.has("levels." + std::to_string(levels) + ".scores"))
      file.refuse("levels", "as many as have scores");
    std::vector<ResidualLevel<T, decltype(execution)>> tree;
    for (Index l = 0; l < levels; ++l) tree.emplace_back(file, l, execution);
    Matrix<T> h;
    for (Index l = 0; l < levels; ++l) {
      tree[std::size_t(l)].connect(file, l, l + 1 < levels ? tree[std::size_t(l) + 1].nodes() : x.rows(), h.cols());
      h = tree[std::size_t(l)].forward(file, x, h);
    }
    file.expect_optional("hidden", h);
    const auto last = load_linear(file, "final");
    Matrix<T> y(x.rows(), last.weight.rows());
    file.expect_option("d_out", double(y.cols()));
    execution.linear(View<const T>(h), last.weights(), y.view());
    file.expect("y", y);
    if (!file.has("grad_y")) return;
    const Matrix<T> d_y = file.matrix("grad_y");
    Matrix<T> d_h(h.rows(), h.cols()), d_x(x.rows(), x.cols());
    auto d_last = mole::zeros_like(last);
    d_last.add_gradients(h, d_y, execution);
    execution.linear_backward(View<const T>(d_y), last.weights(), d_h.view());
    file.expect_gradient("grad.final.weight", d_last.weight);
    file.expect_gradient("grad.final.bias", d_last.bias);
    for (auto level = tree.rbegin(); level != tree.rend(); ++level) d_h = level->backward(file, d_h, d_x);
    file.expect("grad_x", d_x);
  });
}

}  // namespace

std::map<std::string, Method> smore_methods() {
  return {{"smore-gate", smore_gate()}, {"smore-combine", smore_combine()}};
}

}  // namespace golden
