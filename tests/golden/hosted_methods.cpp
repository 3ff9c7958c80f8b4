// SPDX-License-Identifier: MIT
// Routings of experts that belong to the host, or to no layer of this library: sparse-unified, mova,
// mixer-gate; or that the host thins out: mc-odp; and the logits of a host under two of them: scmoe-contrast.
#include "golden/methods.hpp"
#include "golden/routed_layers.hpp"
#include "mole/surgery/deal_units.hpp"

#include <cmath>
#include <numbers>

namespace golden {
namespace {

// ---- sparse-unified

/// The neurons of a dense block, silu(gate x) * (up x) -> down, that are one expert.
template <class T>
class NeuronGroup {
 public:
  NeuronGroup(const Comparison<T>& file, std::vector<std::int64_t> neurons)
      : gate_(file.matrix("dense.gate_proj.weight")),
        up_(file.matrix("dense.up_proj.weight")),
        down_(file.matrix("dense.down_proj.weight")),
        neurons_(std::move(neurons)) {}

  /// y += factor * expert(x)
  void add(std::span<const T> x, T factor, std::span<T> y) const {
    for (const Index j : neurons_) {
      const T g = dot(gate_, j, x), h = factor * g * sigmoid(g) * dot(up_, j, x);
      for (std::size_t o = 0; o < y.size(); ++o) y[o] += down_(Index(o), j) * h;
    }
  }
  /// Adds to d_x and to the gradients of the dense block; returns that of the factor, <expert(x), d_y>.
  T backward(std::span<const T> x, T factor, std::span<const T> d_y, std::span<T> d_x, Matrix<T>& d_gate,
             Matrix<T>& d_up, Matrix<T>& d_down, bool frozen) const {
    T d_factor = 0;
    for (const Index j : neurons_) {
      const T g = dot(gate_, j, x), u = dot(up_, j, x), s = sigmoid(g), h = g * s * u;
      T d_h = 0;
      for (std::size_t o = 0; o < d_y.size(); ++o) d_h += down_(Index(o), j) * d_y[o];
      d_factor += h * d_h;
      if (frozen) continue;
      const T d_g = factor * d_h * u * (s + g * s * (1 - s)), d_u = factor * d_h * g * s;
      for (std::size_t o = 0; o < d_y.size(); ++o) d_down(Index(o), j) += factor * h * d_y[o];
      for (std::size_t i = 0; i < x.size(); ++i) {
        d_gate(j, Index(i)) += d_g * x[i];
        d_up(j, Index(i)) += d_u * x[i];
        d_x[i] += d_g * gate_(j, Index(i)) + d_u * up_(j, Index(i));
      }
    }
    return d_factor;
  }

 private:
  static T sigmoid(T v) { return 1 / (1 + std::exp(-v)); }
  static T dot(const Matrix<T>& weight, Index row, std::span<const T> x) {
    T sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) sum += weight(row, Index(i)) * x[i];
    return sum;
  }

  Matrix<T> gate_, up_, down_;
  std::vector<std::int64_t> neurons_;
};

/// Experts 0 ... E - 1, then the shared one.
template <class T>
std::vector<NeuronGroup<T>> load_neurons(Comparison<T>& file) {
  const Matrix<T> importance = file.matrix("importance");
  const auto neurons = file.integers("neurons.experts"), shared = file.integers("neurons.shared");
  const Index experts = file.integer("experts"), size = Index(neurons.size()) / experts;
  file.expect_option("d_ff", double(importance.size()));
  file.expect_option("neurons_per_expert", double(size));
  file.expect_option("shared_neurons", double(shared.size()));
  if (Index(file.number("shared_ratio") * double(importance.size())) != Index(shared.size()))
    file.refuse("shared_ratio", "that of the shared neurons");
  const auto dealt = mole::deal_units(std::vector<double>(importance.elements().begin(), importance.elements().end()),
                                      {.experts = experts, .shared = Index(shared.size())});
  std::vector<std::int64_t> of_experts;
  for (const auto& units : dealt.experts) of_experts.insert(of_experts.end(), units.begin(), units.end());
  file.expect_optional("neurons.experts", of_experts);
  file.expect_optional("neurons.shared", std::vector<std::int64_t>(dealt.shared.begin(), dealt.shared.end()));
  std::vector<NeuronGroup<T>> groups;
  for (Index e = 0; e < experts; ++e)
    groups.emplace_back(file, std::vector<std::int64_t>(neurons.begin() + e * size, neurons.begin() + (e + 1) * size));
  groups.emplace_back(file, shared);
  return groups;
}

/// A gate of 1 + logit for the chosen; the shared expert has one from a router of its own.
Method sparse_unified() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const Matrix<T> x = load_x(file), d_y = file.has("grad_y") ? file.matrix("grad_y") : Matrix<T>{};
    const mole::Raw one_more{.offset = 1};
    auto layer =
        routing_layer(file, mole::Gate{mole::Identity{}, mole::TopK{file.integer("top_k")}, one_more}, execution);
    mole::Rng rng;
    mole::LinearRouter<T> of_shared({.in = x.cols(), .experts = 1}, rng);
    of_shared.parameters().weight = file.matrix("router.shared.weight");
    mole::MixtureLinear shared(of_shared, mole::Gate{mole::Identity{}, mole::All{}, one_more},
                               Experts<T>({.in = x.cols(), .out = 1, .experts = 1, .rank = 1}, rng),
                               mole::NoBase<T>(x.cols(), 1), execution);
    auto work = layer.workspace(x.rows());
    auto shared_work = shared.workspace(x.rows());
    layer.route(x, work);
    shared.route(x, shared_work);
    expect_gate<T>(file, work);

    const auto groups = load_neurons(file);
    const auto for_each_pair = [&](auto f) {
      for (Index p = 0; p < work.routing.pairs(); ++p)
        f(work.routing.token(p), groups[std::size_t(work.routing.expert(p))], work.routing.gate(p),
          work.d_gate()[std::size_t(p)]);
      for (Index n = 0; n < x.rows(); ++n)
        f(n, groups.back(), shared_work.routing.gate(n), shared_work.d_gate()[std::size_t(n)]);
    };
    Matrix<T> y(x.rows(), x.cols());
    for_each_pair(
        [&](Index n, const NeuronGroup<T>& group, T gate, T&) { group.add(x.view().row(n), gate, y.view().row(n)); });
    file.expect("y", y);
    const bool frozen = file.flag("freeze_experts");
    if (d_y.empty()) return;

    const Matrix<T> gate = file.matrix("dense.gate_proj.weight"), down = file.matrix("dense.down_proj.weight");
    Matrix<T> d_x(x.rows(), x.cols()), d_gate_proj(gate.rows(), gate.cols()), d_up_proj = d_gate_proj,
                                                                              d_down_proj(down.rows(), down.cols());
    for_each_pair([&](Index n, const NeuronGroup<T>& group, T weight, T& d_weight) {
      d_weight = group.backward(x.view().row(n), weight, d_y.view().row(n), d_x.view().row(n), d_gate_proj, d_up_proj,
                                d_down_proj, frozen);
    });
    auto gradients = layer.gradients();
    auto shared_gradients = shared.gradients();
    layer.route_backward(x, d_x, gradients, work);
    shared.route_backward(x, d_x, shared_gradients, shared_work);
    file.expect("grad_x", d_x);
    expect_router_gradients(file, "grad.", gradients.router);
    file.expect_gradient("grad.router.shared.weight", shared_gradients.router.weight);
    file.expect_gradient("grad.dense.gate_proj.weight", d_gate_proj);
    file.expect_gradient("grad.dense.up_proj.weight", d_up_proj);
    file.expect_gradient("grad.dense.down_proj.weight", d_down_proj);
  });
}

// ---- mova

/// gelu(W u + b), and its backward, for rows u of a text and of the mean of an image's tokens.
template <class T>
class PooledInput {
 public:
  explicit PooledInput(Comparison<T>& file)
      : map_(load_linear(file, "gate_mlp.0")), x_(file.matrix("x")), text_(file.matrix("text")) {
    images_ = x_.rows(), width_ = map_.weight.cols() - text_.cols(), tokens_ = x_.cols() / width_;
    file.expect_option("B", double(images_));
    file.expect_option("L", double(tokens_));
    file.expect_option("d", double(width_));
    input_ = Matrix<T>(images_, map_.weight.cols());
    before_ = out_ = Matrix<T>(images_, map_.weight.rows());
    for (Index b = 0; b < images_; ++b) {
      std::ranges::copy(text_.view().row(b), input_.view().row_data(b));
      for (Index i = 0; i < x_.cols(); ++i) input_(b, text_.cols() + i % width_) += x_(b, i) / T(tokens_);
      for (Index o = 0; o < out_.cols(); ++o) {
        T& z = before_(b, o) = map_.bias(0, o);
        for (Index i = 0; i < input_.cols(); ++i) z += map_.weight(o, i) * input_(b, i);
        out_(b, o) = z * below(z);
      }
    }
  }

  const Matrix<T>& out() const { return out_; }

  /// Compares all gradients, for d_out and for d_x of the tokens themselves.
  void expect_gradients(Comparison<T>& file, const Matrix<T>& d_out, Matrix<T> d_x) const {
    Matrix<T> d_weight(map_.weight.rows(), map_.weight.cols()), d_bias(1, map_.weight.rows()),
        d_text(images_, text_.cols());
    for (Index b = 0; b < images_; ++b)
      for (Index o = 0; o < out_.cols(); ++o) {
        const T z = before_(b, o), density = std::exp(-z * z / 2) * T(std::numbers::inv_sqrtpi / std::numbers::sqrt2);
        const T d_z = d_out(b, o) * (below(z) + z * density);
        d_bias(0, o) += d_z;
        for (Index i = 0; i < input_.cols(); ++i) d_weight(o, i) += d_z * input_(b, i);
        for (Index i = 0; i < text_.cols(); ++i) d_text(b, i) += d_z * map_.weight(o, i);
        for (Index i = 0; i < x_.cols(); ++i) d_x(b, i) += d_z * map_.weight(o, text_.cols() + i % width_) / T(tokens_);
      }
    file.expect_gradient("grad.gate_mlp.0.weight", d_weight);
    file.expect_gradient("grad.gate_mlp.0.bias", d_bias);
    file.expect_gradient("grad.text", d_text);
    file.expect("grad_x", d_x);
  }

 private:
  /// The standard normal distribution's share below z.
  static T below(T z) { return std::erfc(-z / T(std::numbers::sqrt2)) / 2; }

  mole::LinearParameters<T> map_;
  Matrix<T> x_, text_, input_, before_, out_;
  Index images_ = 0, width_ = 0, tokens_ = 0;
};

/// An image is a token here.
Method mova() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const PooledInput<T> input(file);
    const auto map = load_linear(file, "gate_mlp.2");
    const Index experts = map.weight.rows();
    file.expect_option("experts", double(experts));
    mole::Rng rng;
    mole::LinearRouter<T> router({.in = map.weight.cols(), .experts = experts, .bias = true}, rng);
    router.parameters() = map;
    mole::MixtureLinear layer(router,
                              mole::Gate{mole::Softmax{}, mole::TopK{file.integer("top_k")}, mole::Renormalized{}},
                              Experts<T>({.in = map.weight.cols(), .out = 1, .experts = experts, .rank = 1}, rng),
                              mole::NoBase<T>(map.weight.cols(), 1), execution);
    auto work = layer.workspace(input.out().rows());
    layer.route(input.out(), work);
    file.expect_optional("router.logits", work.logits());
    const auto flags = file.integers("routing_mask");
    const std::vector<std::uint8_t> allowed(flags.begin(), flags.end());
    layer.route(input.out(), work, {.allowed = allowed});
    file.expect_optional("router.probs", work.scores());
    expect_choice(file, work.routing, experts);

    const Matrix<T> x = file.matrix("x"), outputs = file.matrix("experts.output");  // [B x E L d], constant
    Matrix<T> y = x;
    const auto output = [&](Index p, Index i) {
      return outputs(work.routing.token(p), work.routing.expert(p) * x.cols() + i);
    };
    for (Index p = 0; p < work.routing.pairs(); ++p)
      for (Index i = 0; i < x.cols(); ++i) y(work.routing.token(p), i) += work.routing.gate(p) * output(p, i);
    file.expect("y", y);
    if (!file.has("grad_y")) return;
    const Matrix<T> d_y = file.matrix("grad_y");
    for (Index p = 0; p < work.routing.pairs(); ++p)
      for (Index i = 0; i < x.cols(); ++i)
        work.d_gate()[std::size_t(p)] += d_y(work.routing.token(p), i) * output(p, i);
    Matrix<T> d_hidden(input.out().rows(), input.out().cols());
    auto gradients = layer.gradients();
    layer.route_backward(input.out(), d_hidden, gradients, work);
    file.expect_gradient("grad.gate_mlp.2.weight", gradients.router.weight);
    file.expect_gradient("grad.gate_mlp.2.bias", gradients.router.bias);
    input.expect_gradients(file, d_hidden, d_y);
  });
}

// ---- mixer-gate

/// An environment is a token here.
Method mixer_gate() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const Matrix<T> contexts = file.matrix("contexts"), losses = file.matrix("expert.losses"),
                    noise = file.matrix("noise");
    file.expect_option("environments", double(contexts.rows()));
    file.expect_option("context", double(contexts.cols()));
    file.expect_option("experts", double(losses.cols()));
    for (const char* option : {"max_kmeans", "convergence_tol"})
      file.ignore_option(option);  // which make no difference where k-means settles early
    mole::Rng rng;
    mole::ClusterGate update({.experts = losses.cols(),
                              .context = contexts.cols(),
                              .max_rounds = file.integer("max_kmeans"),
                              .tolerance = file.number("convergence_tol"),
                              .noise = file.number("noise_level")},
                             rng);
    const Matrix<T> initial = file.matrix("initial.centroids");
    std::ranges::copy(initial.elements(), update.centroids().data());
    mole::LinearRouter<T> router({.in = contexts.cols(), .experts = losses.cols(), .bias = file.flag("use_gate_bias")},
                                 rng);
    const bool updated = update.update(contexts.view(), losses.view(), noise.view(), router.parameters(), rng);
    file.expect_optional("updated", {std::int64_t(updated)});
    Matrix<T> targets(contexts.rows(), losses.cols());
    for (Index n = 0; n < targets.rows() && updated; ++n) targets(n, update.expert_of()[std::size_t(n)]) = 1;
    file.expect_optional("targets", targets);
    if (!updated) return;

    Matrix<T> centroids(losses.cols(), contexts.cols());
    std::ranges::transform(update.centroids().elements(), centroids.data(), [](double c) { return T(c); });
    file.expect_optional("centroids", centroids);
    const auto& fitted = router.parameters();
    file.expect_optional("gate.weight", fitted.bias.empty() ? transposed(fitted.weight)
                                                            : stacked(transposed(fitted.weight), fitted.bias));
    mole::MixtureLinear layer(router, mole::Gate{mole::Softmax{}, mole::NearBest{}, mole::Unit{}},
                              Experts<T>({.in = contexts.cols(), .out = 1, .experts = losses.cols(), .rank = 1}, rng),
                              mole::NoBase<T>(contexts.cols(), 1), execution);
    auto work = layer.workspace(contexts.rows());
    layer.route(contexts, work);
    file.expect_optional("gate.probs", work.scores());
    file.expect_optional("gate.dense", dense_weights(work.routing, losses.cols()));
  });
}

// ---- mc-odp

/// What the release takes for the importance of a token. With one head it loses that axis: the mean is over queries.
template <class T>
Matrix<T> token_scores(const Matrix<T>& attention, const Matrix<T>& x) {
  const Index heads = attention.rows(), tokens = x.rows();
  Matrix<T> scores(1, tokens);
  for (Index t = 0; t < tokens; ++t) {
    T weight = 0, size = 0;
    for (Index h = 0; h < heads; ++h)
      for (Index s = 0; s < tokens; ++s)
        weight += heads == 1 ? attention(0, s * tokens + t) / T(tokens)
                             : attention(h, t * tokens + s) / T(heads) / T(tokens - t);
    for (T value : x.view().row(t)) size += std::abs(value);
    scores(0, t) = weight * size;
  }
  return scores;
}

Method mc_odp() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const mole::Gate gate{mole::Softmax{}, mole::TopK{file.integer("top_k")}, mole::Renormalized{}};
    with_layer(file, load_router(file), gate, execution, [&](auto& layer, const auto& names) {
      const Matrix<T> x = load_x(file), attention = file.matrix("attention");
      file.expect_option("heads", double(attention.rows()));
      const Matrix<T> importance = token_scores(attention, x);
      file.expect_optional("token_score", importance);
      mole::DropExpertsOptions options{
          .ratio = file.number("beta"), .lowest = file.number("tau_l"), .highest = file.number("tau_h")};
      if (!file.flag("active", true)) options = {.ratio = 0, .lowest = 0, .highest = 0};
      auto work = layer.workspace(x.rows());
      layer.route(x, work);
      mole::Routing<T> kept;
      mole::drop_experts(work.routing, importance.elements(), kept, options);
      Matrix<T> y(x.rows(), layer.out());
      layer.apply(x, kept, y, work);
      file.expect("y", y);

      file.expect_optional("router.logits", work.logits());
      file.expect_optional("router.probs", work.scores());
      const Matrix<T> dense = dense_weights(kept, names.experts());
      file.expect_optional("gate.dense", dense);
      const Index k = file.integer("top_k");
      std::vector<std::int64_t> indices, is_kept;
      Matrix<T> weights(x.rows(), k);
      for (Index n = 0; n < x.rows(); ++n)
        for (Index slot = 0; slot < k; ++slot) {
          const int e = work.routing.experts_of(n)[std::size_t(slot)];
          indices.push_back(e);
          is_kept.push_back(std::ranges::count(kept.experts_of(n), e));
          weights(n, slot) = dense(n, e);
        }
      file.expect_optional("gate.indices", indices);
      file.expect_optional("gate.kept", is_kept);
      file.expect_optional("gate.weights", weights);
    });
  });
}

// ---- scmoe-contrast

/// Logits of a strong and of a weak pass, divided by temperatures of the host. -infinity is stored as 0.
Method scmoe_contrast() {
  return offline([]<class T>(Comparison<T>& file) {
    if (file.has_option("blocked_token")) file.refuse("blocked_token", "None");
    Matrix<T> strong = file.matrix("strong"), weak = file.matrix("weak");
    file.expect_option("rows", double(strong.rows()));
    file.expect_option("vocabulary", double(strong.cols()));
    for (T& logit : strong.elements()) logit /= T(file.number("strong_temperature"));
    for (T& logit : weak.elements()) logit /= T(file.number("weak_temperature"));
    Matrix<T> contrasted(strong.rows(), strong.cols()), cutoff(strong.rows(), 1);
    std::vector<std::int64_t> valid, next;
    for (Index n = 0; n < strong.rows(); ++n) {
      const auto row = contrasted.view().row(n);
      mole::self_contrast<T>(strong.view().row(n), weak.view().row(n), row,
                             {.alpha = file.number("alpha"), .beta = file.number("beta")});
      cutoff(n, 0) = T(std::log(file.number("alpha")) + double(std::ranges::max(strong.view().row(n))));
      next.push_back(std::ranges::max_element(row) - row.begin());
      for (T& logit : row) {
        valid.push_back(std::isinf(logit) ? 0 : 1);
        if (std::isinf(logit)) logit = 0;
      }
    }
    file.expect("contrasted", contrasted);
    file.expect_optional("cutoff", cutoff);
    file.expect_optional("valid", valid);
    file.expect_optional("next", next);
  });
}

}  // namespace

std::map<std::string, Method> hosted_methods() {
  return {{"sparse-unified", sparse_unified()},
          {"mova", mova()},
          {"mixer-gate", mixer_gate()},
          {"mc-odp", mc_odp()},
          {"scmoe-contrast", scmoe_contrast()}};
}

}  // namespace golden
