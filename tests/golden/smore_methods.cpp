// SPDX-License-Identifier: MIT
// S'MoRE's gate, noisy cosines of a network of x with keys: smore-gate.
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

}  // namespace

std::map<std::string, Method> smore_methods() {
  return {{"smore-gate", smore_gate()}};
}

}  // namespace golden
