// SPDX-License-Identifier: MIT
// Layers over trained adapters, noisy routers, and routings by something other than the token: arrow,
// noisy-topk, xlora, prompt-bank.
#include "golden/methods.hpp"
#include "golden/routed_layers.hpp"
#include "mole/loss/importance_cv2.hpp"
#include "mole/loss/load_cv2.hpp"
#include "mole/loss/squared_cv.hpp"
#include "mole/loss/triplet_cosine.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <vector>

namespace golden {
namespace {

/// Experts that each have a scale of their own.
template <class T>
Experts<T> load_scaled_experts(Comparison<T>& file, const ExpertFiles<T>& names) {
  Experts<T> experts = names.load(file);
  for (Index e = 0; e < experts.experts(); ++e)
    experts.scale()[std::size_t(e)] = T(file.exact("experts." + std::to_string(e) + ".scaling"));
  return experts;
}

/// `found` with the sign that each row has in `expected`: singular vectors have none.
template <class T>
Matrix<T> with_signs_of(const Matrix<T>& expected, Matrix<T> found) {
  for (Index r = 0; r < found.rows(); ++r) {
    const std::span<T> of = found.view().row(r);
    const std::span<const T> like = expected.view().row(r);
    if (std::inner_product(of.begin(), of.end(), like.begin(), T(0)) < 0)
      for (T& number : of) number = -number;
  }
  return found;
}

/// The release's prototypes are those of 15 power iterations, so the layer takes them from the file.
Method arrow() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const ExpertFiles<T> names(file);
    const Experts<T> experts = load_scaled_experts(file, names);
    with_base(file, experts.in(), experts.out(), [&](auto base) {
      auto layer = mole::arrow({.k = file.integer("top_k"), .temperature = file.number("router_temperature")}, experts,
                               std::move(base), execution);
      if (file.has("prototypes.exact_svd"))
        file.expect("prototypes.exact_svd",
                    with_signs_of(file.matrix("prototypes.exact_svd"), layer.router().parameters().weight));
      layer.router().parameters().weight = file.matrix("prototypes");
      auto work = layer.workspace(load_x(file).rows());
      expect_layer(file, layer, work, {}, "",
                   [&](const auto& gradients) { names.expect_gradients(file, "grad.", experts, gradients.experts); });
      file.expect_optional("router.similarity", work.scores());
      expect_gate<T>(file, work);
    });
  });
}

/// The shares of the chosen scores in their sum + 1e-6, as the port has them.
struct SharesOfMore {
  template <class T>
  void forward(std::span<const T> scores, std::span<const int> chosen, std::span<T> gates) const {
    for (std::size_t j = 0; j < chosen.size(); ++j) gates[j] = scores[std::size_t(chosen[j])] / more(scores, chosen);
  }
  template <class T>
  void backward(std::span<const T> scores, std::span<const int> chosen, std::span<const T> gates,
                std::span<const T> d_gates, std::span<T> d_scores) const {
    const T mean = std::inner_product(gates.begin(), gates.end(), d_gates.begin(), T(0));
    for (std::size_t j = 0; j < chosen.size(); ++j)
      d_scores[std::size_t(chosen[j])] += (d_gates[j] - mean) / more(scores, chosen);
  }
  template <class T>
  static T more(std::span<const T> scores, std::span<const int> chosen) {
    T sum = T(1e-6);
    for (int e : chosen) sum += scores[std::size_t(e)];
    return sum;
  }
};

/// The routing of a noisy router; its experts are not used.
template <class T, class Execution>
class NoisyRouting {
 public:
  NoisyRouting(Comparison<T>& file, const Execution& execution)
      : x_(load_x(file)),
        layer_(layer_of(file, x_, execution)),
        work_(layer_.workspace(x_.rows())),
        gradients_(layer_.gradients()),
        noise_(file.matrix("noise")),
        d_clean_(noise_.rows(), noise_.cols()),
        d_deviation_(d_clean_),
        training_(file.flag("training")) {
    file.expect_option("experts", double(experts()));
  }

  void route() {
    work_.router_scratch.carry = {.noise = noise_, .d_clean = d_clean_, .d_deviation = d_deviation_};
    layer_.route(x_, work_, {.training = training_});
  }
  mole::Trace<T>& trace() { return work_; }

  void set_d_gate(const Matrix<T>& dense) {
    for (Index p = 0; p < work_.routing.pairs(); ++p)
      work_.d_gate()[std::size_t(p)] = dense(work_.routing.token(p), work_.routing.expert(p));
  }

  std::vector<double> importance() const {
    std::vector<double> sums(static_cast<std::size_t>(experts()));
    for (Index p = 0; p < work_.routing.pairs(); ++p)
      sums[std::size_t(work_.routing.expert(p))] += double(work_.routing.gate(p));
    return sums;
  }
  /// In training the probability that another draw of its noise would choose the expert; otherwise the number of its
  /// tokens. As published, a logit is compared with thresholds that are scores.
  std::vector<double> load() const {
    std::vector<double> sums(static_cast<std::size_t>(experts()));
    for (Index n = 0; n < x_.rows(); ++n)
      for (Index e = 0; e < experts() && is_smooth(); ++e)
        sums[std::size_t(e)] += std::erfc(-above(n, e) / std::numbers::sqrt2) / 2;
    for (Index p = 0; p < work_.routing.pairs() && !is_smooth(); ++p)
      sums[std::size_t(work_.routing.expert(p))] += work_.routing.gate(p) > 0;
    return sums;
  }

  /// CV^2 of both; gradients go to the gates, and, through what the router carries, to the noise. Counts have none.
  double add_cv_loss() {
    const double of_importance = mole::importance_cv2(trace());
    if (!is_smooth()) {
      const auto counts = load();
      return of_importance +
             mole::SquaredCv::of(experts(), true, 1e-10, [&](Index e) { return counts[std::size_t(e)]; }).value();
    }
    const auto& scratch = work_.router_scratch;
    return of_importance + mole::load_cv2<T>(trace(),
                                             {scratch.clean.top(x_.rows()), scratch.deviation.top(x_.rows()),
                                              d_clean_.view(), d_deviation_.view()},
                                             {.k = layer_.gating().select.k, .of_scores = true});
  }

  void expect_gradients(Comparison<T>& file, const std::string& prefix, const std::string& of_x) {
    Matrix<T> d_x(x_.rows(), x_.cols());
    set_zero(gradients_);
    layer_.route_backward(x_, d_x, gradients_, work_);
    // The gate of a single choice is s / (s + 1e-6): its gradient in float is the rounding of 1 - gate, in any order.
    const bool rounding = std::same_as<T, float> && layer_.gating().select.k == 1;
    for (const auto& [name, gradient] :
         {std::pair(of_x, d_x.view()), std::pair(prefix + "router.weight", gradients_.router.router.weight.view())})
      if (rounding && file.has(name))
        file.input(name);
      else
        file.expect_gradient(name, gradient);
    file.expect_gradient(prefix + "noise.weight", gradients_.router.noise);
  }

 private:
  static auto layer_of(Comparison<T>& file, const Matrix<T>& x, const Execution& execution) {
    const auto clean = load_router(file);
    mole::NoisyRouter router(clean, {.learned = true, .floor = file.number("noise_epsilon")});
    router.parameters().noise = file.matrix("noise.weight");
    mole::Rng rng;
    return mole::MixtureLinear(router, mole::Gate{mole::Softmax{}, mole::TopK{file.integer("top_k")}, SharesOfMore{}},
                               Experts<T>({.in = x.cols(), .out = 1, .experts = clean.outputs(), .rank = 1}, rng),
                               mole::NoBase<T>(x.cols(), 1), execution);
  }
  using Layer = decltype(layer_of(std::declval<Comparison<T>&>(), std::declval<Matrix<T>>(), Execution()));

  Index experts() const { return layer_.router().outputs(); }
  bool is_smooth() const { return training_ && layer_.gating().select.k < experts(); }
  /// The expert whose score is the threshold of e: the best one that was not chosen, or the last one that was.
  Index threshold_of(Index n, Index e) const {
    std::vector<Index> order(static_cast<std::size_t>(experts()));
    std::iota(order.begin(), order.end(), Index(0));
    const auto scores = std::as_const(work_).scores().row(n);
    std::ranges::stable_sort(order, std::greater(), [&](Index i) { return scores[std::size_t(i)]; });
    const auto k = std::size_t(layer_.gating().select.k);
    return std::as_const(work_).logits()(n, e) > scores[std::size_t(order[k])] ? order[k] : order[k - 1];
  }
  double above(Index n, Index e) const {
    const double threshold = double(std::as_const(work_).scores()(n, threshold_of(n, e)));
    return (double(work_.router_scratch.clean(n, e)) - threshold) / double(work_.router_scratch.deviation(n, e));
  }

  Matrix<T> x_;
  Layer layer_;
  typename Layer::Workspace work_;
  typename Layer::Gradients gradients_;
  Matrix<T> noise_, d_clean_, d_deviation_;
  bool training_;
};

template <class T>
void expect_numbers(Comparison<T>& file, const std::string& name, const std::vector<double>& found) {
  if (!file.has(name)) return;
  Matrix<T> row(1, Index(found.size()));
  std::ranges::transform(found, row.elements().begin(), [](double number) { return T(number); });
  file.expect(name, row);
}

Method noisy_top_k() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    NoisyRouting routing(file, execution);
    routing.route();
    expect_gate<T>(file, routing.trace());
    expect_numbers(file, "importance", routing.importance());
    expect_numbers(file, "load", routing.load());
    if (file.has("grad_gate")) {
      routing.set_d_gate(file.matrix("grad_gate"));
      routing.expect_gradients(file, "grad.", "grad_x");
    }
    if (!file.has("loss.cv")) return;
    routing.route();
    file.expect_number("loss.cv", routing.add_cv_loss());
    routing.expect_gradients(file, "grad_loss.cv.", "grad_loss.cv.x");
  });
}

/// The scalings of all layers and of one of them, and what that layer makes of its adapters; `gates` times `scale` are
/// the gates of its routing.
template <class T, class Routing, class Execution>
void expect_xlora(Comparison<T>& file, Routing& routing, double scale, const Execution& execution) {
  const ExpertFiles<T> names(file);
  const Matrix<T> hidden = file.matrix("hidden"), x = load_x(file);
  const std::size_t depth = std::size_t(file.integer("xlora_depth"));
  const auto name = [](std::size_t l) { return "classifier." + std::to_string(2 * l); };
  for (std::size_t l = 0; l < depth; ++l) routing.router().parameters().layers[l] = load_linear(file, name(l));
  file.expect_option("hidden", double(hidden.cols()));
  const Index m = file.integer("layer_number"), layers = routing.options().layers;

  auto work = routing.workspace(x.rows());
  routing.route(hidden, work);
  const Index experts = routing.options().experts;
  Matrix<T> scalings(x.rows(), layers * experts);
  for (Index l = 0; l < layers; ++l) copy<T>(work.trace(l).scores(), scalings.view().middle_cols(l * experts, experts));
  file.expect_optional("scalings", scalings);
  Matrix<T> gates = dense_weights(work.routing(m), experts);
  for (T& gate : gates.elements()) gate = T(double(gate) / scale);
  file.expect_optional("gate.dense", gates);

  Experts<T> adapters = load_scaled_experts(file, names);
  with_base(file, adapters.in(), adapters.out(), [&](auto base) {
    mole::ExpertLinear layer(adapters, std::move(base), execution);
    auto layer_work = layer.workspace(x.rows(), work.routing(m).pairs());
    Matrix<T> y(x.rows(), layer.out()), d_x(x.rows(), x.cols()), d_hidden(hidden.rows(), hidden.cols());
    layer.apply(x, work.routing(m), y, layer_work);
    file.expect("y", y);
    if (!file.has("grad_y")) return;
    auto gradients = layer.gradients();
    auto of_classifier = routing.gradients();
    layer.apply_backward(x, work.routing(m), file.matrix("grad_y"), work.d_gate(m), d_x, gradients, layer_work);
    routing.route_backward(hidden, d_hidden, of_classifier, work);
    file.expect("grad_x", d_x);
    file.expect_optional("grad.hidden", d_hidden);
    names.expect_gradients(file, "grad.", layer.experts(), gradients.experts);
    for (std::size_t l = 0; l < depth; ++l) {
      file.expect_gradient("grad." + name(l) + ".weight", of_classifier.layers[l].weight);
      file.expect_gradient("grad." + name(l) + ".bias", of_classifier.layers[l].bias);
    }
  });
}

Method xlora() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    if (!file.flag("layerwise_scalings", true)) file.refuse("layerwise_scalings", "True");
    const Index depth = file.integer("xlora_depth"), width = file.integer("xlora_size");
    if (depth == 1) file.ignore_option("xlora_size");
    const mole::XloraOptions options{.hidden = file.matrix("hidden").cols(),
                                     .layers = file.integer("n_layers"),
                                     .experts = file.integer("experts"),
                                     .depth = depth,
                                     .width = width,
                                     .temperature = file.number("softmax_temperature", 1),
                                     .k = file.integer("top_k_lora", 0),
                                     .global_scaling_weight = file.number("global_scaling_weight", 1)};
    mole::Rng rng;
    auto routing = mole::xlora<T>(options, rng, execution);
    if (depth > 1) file.expect_option("xlora_size", double(file.matrix("classifier.0.weight").rows()));
    const bool softmax = file.flag("enable_softmax", true), over_chosen = file.flag("enable_softmax_topk");
    if (softmax && !over_chosen) return expect_xlora(file, routing, options.global_scaling_weight, execution);
    if (options.global_scaling_weight != 1) file.refuse("global_scaling_weight", "1 without the preset's gate");
    if (!softmax) file.ignore_option("softmax_temperature");
    const auto check = [&](auto score, auto weigh) {
      mole::ModelRouting other(routing.router(), mole::Gate{score, routing.gating().select, weigh}, routing.options(),
                               execution);
      expect_xlora(file, other, 1, execution);
    };
    if (softmax) return check(routing.gating().score, mole::SoftmaxOverChosen{});
    if (over_chosen) return check(mole::Identity{}, mole::SoftmaxOverChosen{});
    check(mole::Identity{}, mole::Raw{});
  });
}

Method prompt_bank() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const Matrix<T> keys = file.matrix("keys"), values = file.matrix("values");
    mole::Rng rng;
    auto layer =
        mole::prompt_bank<T>({.in = keys.cols(), .entries = keys.rows(), .prompt = values.cols()}, rng, execution);
    layer.router().parameters().prototypes = keys;
    layer.experts().bias() = values;
    file.expect_option("entries", double(keys.rows()));
    file.expect_option("d_value", double(values.cols()));
    const Matrix<T> x = file.matrix("x");
    file.expect_option("B", double(x.rows()));
    file.expect_option("d", double(x.cols()));
    Matrix<T> y(x.rows(), layer.out()), d_x(x.rows(), x.cols());
    auto work = layer.workspace(x.rows());
    layer.forward(x, y, work);
    file.expect("y", y);
    if (file.has("grad_y")) {
      auto gradients = layer.gradients();
      layer.backward(x, file.matrix("grad_y"), d_x, gradients, work);
      file.expect("grad_x", d_x);
      file.expect("grad.keys", gradients.router.prototypes);
      file.expect("grad.values", gradients.experts.bias);
    }
    expect_gate<T>(file, work);
    const auto feature = [&](const std::string& name) { return file.matrix("triplet." + name); };
    const Matrix<T> anchor = feature("anchor"), positive = feature("positive"), negative = feature("negative");
    Matrix<T> d_anchor(anchor.rows(), anchor.cols()), d_positive(d_anchor), d_negative(d_anchor);
    const double triplet = mole::triplet_cosine<T>(anchor, positive, negative, d_anchor.view(), d_positive.view(),
                                                   d_negative.view(), {.margin = file.number("margin")});
    if (!file.has("loss.triplet")) return;
    file.expect_number("loss.triplet", triplet);
    file.expect("grad_loss.triplet.triplet.anchor", d_anchor);
    file.expect("grad_loss.triplet.triplet.positive", d_positive);
    file.expect("grad_loss.triplet.triplet.negative", d_negative);
  });
}

}  // namespace

std::map<std::string, Method> routing_methods() {
  return {{"arrow", arrow()}, {"noisy-topk", noisy_top_k()}, {"xlora", xlora()}, {"prompt-bank", prompt_bank()}};
}

}  // namespace golden
