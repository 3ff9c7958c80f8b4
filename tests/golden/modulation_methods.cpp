// SPDX-License-Identifier: MIT
// Experts that modulate what a shared block makes, or what others read: mofme, mofme-uar,
// compressed-experts.
#include "golden/methods.hpp"
#include "golden/routed_layers.hpp"

#include <cmath>
#include <numbers>

namespace golden {
namespace {

// ---- mofme

template <class T>
T normal_share(T x) {
  return T(0.5) * std::erfc(-x / std::numbers::sqrt2_v<T>);
}
template <class T>
T gelu(T x) {
  return x * normal_share(x);
}
template <class T>
T gelu_slope(T x) {
  return normal_share(x) + x * std::exp(-x * x / 2) * T(1 / std::numbers::sqrt2 * std::numbers::inv_sqrtpi);
}

/// gelu(W0 n + b0) * (W1 n + b1), n = LayerNorm(x): the block that MoFME's experts share, as a base that is trained.
template <class T>
class GatedBlock {
 public:
  using Scalar = T;
  struct Parameters {
    mole::LinearParameters<T> norm, first, second;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      mole::for_each_tensor_within<mole::LinearParameters<T>>("norm", f, p.norm...);
      mole::for_each_tensor_within<mole::LinearParameters<T>>("base.0", f, p.first...);
      mole::for_each_tensor_within<mole::LinearParameters<T>>("base.1", f, p.second...);
    }
  };
  struct Scratch {
    View<T> standard, n, d_n, gate, up, d_gate, d_up;  // standard: before the norm's own scale and shift
    std::span<T> inverse;                              // of the deviation
  };

  explicit GatedBlock(const Comparison<T>& file)
      : parameters_{load_linear(file, "norm"), load_linear(file, "base.0"), load_linear(file, "base.1")} {}

  Index in() const { return parameters_.first.weight.cols(); }
  Index out() const { return parameters_.first.weight.rows(); }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  Scratch scratch(const mole::CallSize& size, mole::Arena& arena) const {
    const auto rows = [&](Index cols) { return arena.matrix<T>(size.tokens, cols); };
    return {rows(in()),  rows(in()),  rows(in()),  rows(out()),
            rows(out()), rows(out()), rows(out()), arena.array<T>(size.tokens)};
  }

  void forward(View<const T> x, View<T> u, auto call) const {
    Scratch& s = call.scratch;
    for (Index t = 0; t < x.rows(); ++t) {
      T mean = 0, variance = 0;
      for (T value : x.row(t)) mean += value / T(x.cols());
      for (T value : x.row(t)) variance += (value - mean) * (value - mean) / T(x.cols());
      s.inverse[std::size_t(t)] = 1 / std::sqrt(variance + T(1e-5));
      for (Index i = 0; i < x.cols(); ++i) {
        s.standard(t, i) = (x(t, i) - mean) * s.inverse[std::size_t(t)];
        s.n(t, i) = s.standard(t, i) * parameters_.norm.weight(0, i) + parameters_.norm.bias(0, i);
      }
    }
    const View<T> gate = s.gate.top(x.rows()), up = s.up.top(x.rows());
    call.execution.linear(View<const T>(s.n.top(x.rows())), parameters_.first.weights(), gate);
    call.execution.linear(View<const T>(s.n.top(x.rows())), parameters_.second.weights(), up);
    for (Index t = 0; t < x.rows(); ++t)
      for (Index o = 0; o < u.cols(); ++o) u(t, o) = gelu(gate(t, o)) * up(t, o);
  }

  void backward(View<const T> x, View<const T> d_u, View<T> d_x, Parameters& gradients, auto call) const {
    Scratch& s = call.scratch;
    const View<T> n = s.n.top(x.rows()), d_n = s.d_n.top(x.rows()), d_gate = s.d_gate.top(x.rows()),
                  d_up = s.d_up.top(x.rows());
    for (Index t = 0; t < x.rows(); ++t)
      for (Index o = 0; o < d_u.cols(); ++o) {
        d_gate(t, o) = d_u(t, o) * s.up(t, o) * gelu_slope(s.gate(t, o));
        d_up(t, o) = d_u(t, o) * gelu(s.gate(t, o));
      }
    fill(d_n, T(0));
    call.execution.product_nn(View<const T>(d_gate), parameters_.first.weight, d_n);
    call.execution.product_nn(View<const T>(d_up), parameters_.second.weight, d_n);
    if (!gradients.first.weight.empty()) gradients.first.add_gradients(n, d_gate, call.execution);
    if (!gradients.second.weight.empty()) gradients.second.add_gradients(n, d_up, call.execution);
    for (Index t = 0; t < x.rows(); ++t) {
      T mean = 0, along = 0;
      for (Index i = 0; i < x.cols(); ++i) {
        const T d = d_n(t, i) * parameters_.norm.weight(0, i);
        mean += d / T(x.cols()), along += d * s.standard(t, i) / T(x.cols());
        if (!gradients.norm.weight.empty()) gradients.norm.weight(0, i) += d_n(t, i) * s.standard(t, i);
        if (!gradients.norm.bias.empty()) gradients.norm.bias(0, i) += d_n(t, i);
      }
      for (Index i = 0; d_x && i < x.cols(); ++i)
        d_x(t, i) +=
            s.inverse[std::size_t(t)] * (d_n(t, i) * parameters_.norm.weight(0, i) - mean - along * s.standard(t, i));
    }
  }

 private:
  Parameters parameters_;
};

/// The tensors of the file's experts, one below the other, as scale and shift of a modulation; or back, compared.
template <class T, class F>
void for_each_modulation_tensor(mole::ParametersOf<mole::FeatureModulation<T>>& p, Index experts, F f) {
  for (Index e = 0; e < experts; ++e)
    for (auto& [name, tensor] : {std::pair{"scale.weight", &p.scale_weight},
                                 {"scale.bias", &p.scale_bias},
                                 {"shift.weight", &p.shift_weight},
                                 {"shift.bias", &p.shift_bias}}) {
      const Index rows = tensor->rows() / experts;
      f("experts." + std::to_string(e) + "." + name, tensor->view().middle_rows(e * rows, rows));
    }
}

/// y = x + W1 gelu(W0 v + b0) + b1, v = the layer's output.
template <mole::MofmeLoop loop, class T, class Execution>
void check_mofme(Comparison<T>& file, Execution execution) {
  const Matrix<T> x = load_x(file);
  mole::Rng rng;
  const Index experts = file.integer("experts"), k = file.integer("top_k");
  auto layer = mole::mofme<mole::MofmeGates::renormalized, loop>({.experts = experts, .k = k}, GatedBlock<T>(file), rng,
                                                                 execution);
  layer.router() = load_router(file);
  auto& maps = layer.experts().behind().parameters();
  for_each_modulation_tensor<T>(maps, experts, [&](const std::string& name, View<T> to) {
    const Matrix<T> tensor = file.matrix(name);
    copy(tensor.view(), to);
  });
  mole::LinearParameters<T> first = load_linear(file, "adaptor.0"), second = load_linear(file, "adaptor.1");
  file.expect_option("d_ff", double(first.weight.rows()));

  auto work = layer.workspace(x.rows());
  Matrix<T> v(x.rows(), layer.out()), hidden(x.rows(), first.weight.rows()), active = hidden, y = x;
  layer.forward(x, v, work);
  execution.linear(v, first.weights(), hidden.view());
  std::ranges::transform(hidden.elements(), active.elements().begin(), gelu<T>);
  Matrix<T> added(x.rows(), x.cols());
  execution.linear(active, second.weights(), added.view());
  for (Index i = 0; i < y.size(); ++i) y.elements()[std::size_t(i)] += added.elements()[std::size_t(i)];
  file.expect("y", y);
  expect_gate<T>(file, work);
  if (!file.has("grad_y")) return;

  const Matrix<T> d_y = file.matrix("grad_y");
  Matrix<T> d_active(x.rows(), hidden.cols()), d_hidden = d_active, d_v(x.rows(), layer.out()), d_x = d_y;
  auto d_first = zeros_like(first), d_second = zeros_like(second);
  execution.product_nn(d_y, second.weight, d_active.view());
  d_second.add_gradients(active, d_y, execution);
  for (std::size_t i = 0; i < d_hidden.elements().size(); ++i)
    d_hidden.elements()[i] = d_active.elements()[i] * gelu_slope(hidden.elements()[i]);
  execution.product_nn(d_hidden, first.weight, d_v.view());
  d_first.add_gradients(v, d_hidden, execution);
  auto gradients = layer.gradients();
  layer.backward(x, d_v, d_x, gradients, work);
  file.expect("grad_x", d_x);
  expect_router_gradients(file, "grad.", gradients.router);
  for (const auto& [name, d] : {std::pair{"adaptor.0", &d_first}, {"adaptor.1", &d_second}}) {
    file.expect(std::string("grad.") + name + ".weight", d->weight);
    file.expect(std::string("grad.") + name + ".bias", d->bias);
  }
  GatedBlock<T>::Parameters::for_each_tensor(
      [&](std::string_view name, const Matrix<T>& d) { file.expect("grad." + std::string(name), d); },
      gradients.experts.base);
  for_each_modulation_tensor<T>(gradients.experts.experts, experts, [&](const std::string& name, View<const T> d) {
    file.expect_gradient("grad." + name, d);
  });
}

Method mofme() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    if (file.flag("as_published"))
      check_mofme<mole::MofmeLoop::as_published>(file, execution);
    else
      check_mofme<mole::MofmeLoop::repaired>(file, execution);
  });
}

// ---- mofme-uar

/// Samples of a router are given: the calibration alone.
template <class T>
void check_calibration(Comparison<T>& file) {
  file.under("UncertaintyCalibration");
  const Index samples = file.integer("samples"), experts = file.integer("experts");
  const Matrix<T> stored = file.matrix("samples");
  const View<const T> r(stored.data(), stored.size() / experts, experts);  // [samples tokens x experts]
  const Index tokens = r.rows() / samples;
  file.expect_option("T", double(tokens));
  file.expect_option("B", double(tokens) / file.number("S"));
  file.expect_option("S", double(tokens) / file.number("B"));
  const mole::UncertaintyCalibration calibration{mole::Calibration::literal, file.number("epsilon")};
  mole::MemoryBlock memory(
      mole::bytes_of([&](mole::Arena& arena) { return calibration.scratch(samples, experts, arena); }),
      std::pmr::get_default_resource());
  mole::Arena arena(memory.bytes());
  auto scratch = calibration.scratch(samples, experts, arena);
  Matrix<T> mean(tokens, experts), gate(tokens, experts);
  for (Index n = 0; n < tokens; ++n) {
    calibration.forward(
        samples, [&](Index m) { return r.row(m * tokens + n); }, gate.view().row(n), scratch);
    std::ranges::transform(scratch.mean, mean.view().row(n).begin(), [](double value) { return T(value); });
  }
  file.expect("mean", mean);
  file.expect("gate.dense", gate);
}

Method mofme_uar() {
  const auto check = [](auto& file) { check_calibration(file); };
  return {check, check};
}

// ---- compressed-experts

/// One projection of the experts, with the vectors of its own input.
template <class T, class Execution>
class CompressedProjection {
 public:
  CompressedProjection(const Comparison<T>& file, std::string name, Index experts, Index row, Execution execution)
      : name_(std::move(name)),
        row_(row),
        layer_(load(file, experts), base(file), execution),
        gradients_(layer_.gradients()) {}

  Index out() const { return layer_.out(); }
  /// The work of one routing.
  auto workspace(Index tokens) const { return layer_.workspace(tokens); }
  template <class Work>
  Matrix<T> forward(const Matrix<T>& x, const mole::Routing<T>& routing, Work& work) const {
    Matrix<T> y(x.rows(), layer_.out());
    layer_.apply(x, routing, y, work);
    return y;
  }
  template <class Work>
  void backward(const Matrix<T>& x, const mole::Routing<T>& routing, const Matrix<T>& d_y, std::span<T> d_gate,
                Matrix<T>& d_x, Work& work) {
    layer_.apply_backward(x, routing, d_y, d_gate, d_x, gradients_, work);
  }
  void expect_gradients(Comparison<T>& file, Matrix<T>& d_vectors) const {
    const Index experts = layer_.experts().experts();
    for (Index e = 0; e < experts; ++e) {
      file.expect_gradient("grad." + weight_name(e),
                           gradients_.experts.experts.weight.view().middle_rows(e * layer_.out(), layer_.out()));
      std::ranges::copy(gradients_.experts.compressed.view().row(e), d_vectors.view().row(e * 3 + row_).begin());
    }
  }

 private:
  using Maps = mole::DenseMaps<T>;
  using Layer = mole::ExpertLinear<mole::CompressedExperts<mole::MapExperts<Maps>>, mole::NoBase<T>, Execution>;

  std::string weight_name(Index e) const { return "experts." + std::to_string(e) + "." + name_ + ".weight"; }
  mole::NoBase<T> base(const Comparison<T>& file) const {
    const Matrix<T> first = file.matrix(weight_name(0));
    return {first.cols(), first.rows()};
  }
  mole::CompressedExperts<mole::MapExperts<Maps>> load(const Comparison<T>& file, Index experts) const {
    const Matrix<T> first = file.matrix(weight_name(0)), vectors = file.matrix("compressed");
    mole::Rng rng;
    mole::MapExperts<Maps> main({.in = first.cols(), .out = first.rows(), .experts = experts}, rng);
    for (Index e = 0; e < experts; ++e) {
      const Matrix<T> weight = file.matrix(weight_name(e));
      copy(weight.view(), main.parameters().weight.view().middle_rows(e * first.rows(), first.rows()));
    }
    mole::CompressedExperts compressed(std::move(main), 1);
    const Index width = vectors.size() / (3 * experts);
    for (Index e = 0; e < experts; ++e)
      std::copy_n(vectors.data() + (3 * e + row_) * width, compressed.in(),
                  compressed.parameters().compressed.view().row_data(e));
    return compressed;
  }

  std::string name_;
  Index row_;
  Layer layer_;
  typename Layer::Gradients gradients_;
};

/// The pair of main expert `slot` of each token, under a gate of 1, and those of its auxiliary experts.
template <class T>
mole::Routing<T> one_main_expert(const mole::Routing<T>& routing, Index main, Index slot) {
  mole::Routing<T> one;
  one.start(routing.experts());
  for (Index n = 0; n < routing.tokens(); ++n) {
    one.push(routing.expert(routing.first_pair(n) + slot), T(1));
    for (Index p = routing.first_pair(n) + main; p < routing.first_pair(n + 1); ++p)
      one.push(routing.expert(p), routing.gate(p));
    one.end_token();
  }
  one.finish();
  return one;
}

/// Main weights, and the auxiliary ones as shares.
template <class T>
void expect_main_and_auxiliary(Comparison<T>& file, const mole::Trace<T>& trace, Index main) {
  const mole::Routing<T>& routing = trace.routing;
  Matrix<T> dense(trace.tokens(), trace.experts()), shares = dense, weights(trace.tokens(), main);
  std::vector<std::int64_t> indices;
  for (Index n = 0; n < trace.tokens(); ++n) {
    const Index first = routing.first_pair(n), end = routing.first_pair(n + 1);
    T sum = 0;
    for (Index p = first + main; p < end; ++p) sum += routing.gate(p);
    for (Index p = first; p < end; ++p) {
      indices.push_back(routing.expert(p));
      if (p < first + main)
        weights(n, p - first) = dense(n, routing.expert(p)) = routing.gate(p);
      else
        shares(n, routing.expert(p)) = routing.gate(p) / sum;
    }
  }
  file.expect_optional("router.logits", trace.logits());
  file.expect_optional("router.probs", trace.scores());
  file.expect_optional("gate.dense", dense);
  file.expect_optional("gate.auxiliary", shares);
  file.expect_optional("gate.weights", weights);
  file.expect_optional("gate.indices", indices);
}

/// y = sum over the main experts of gate down(silu(gate(x)) * up(x)), each projection behind its vectors.
template <class T, class Gating, class Execution>
void check_compressed(Comparison<T>& file, Gating gating, Execution execution) {
  const Matrix<T> x = load_x(file);
  const Index main = file.integer("main"), experts = file.integer("experts"), tokens = x.rows();
  file.expect_option("top_k", double(main + file.integer("compressed")));
  CompressedProjection<T, Execution> gate(file, "gate_proj", experts, 0, execution),
      up(file, "up_proj", experts, 2, execution), down(file, "down_proj", experts, 1, execution);
  file.expect_option("d_ff", double(up.out()));
  mole::Rng rng;
  const mole::MapExperts<mole::DenseMaps<T>> unused({.in = x.cols(), .out = 1, .experts = experts}, rng);
  mole::MixtureLinear router(load_router(file), gating, unused, mole::NoBase<T>(x.cols(), 1), execution);
  auto work = router.workspace(tokens);
  router.route(x, work);
  expect_main_and_auxiliary<T>(file, work, main);

  const bool backward = file.has("grad_y");
  const Matrix<T> d_y = backward ? file.matrix("grad_y") : Matrix<T>(tokens, x.cols());
  Matrix<T> y(tokens, x.cols()), d_x = y;
  for (Index slot = 0; slot < main; ++slot) {
    const auto one = one_main_expert(work.routing, main, slot);
    auto gate_work = gate.workspace(tokens);
    auto up_work = up.workspace(tokens);
    auto down_work = down.workspace(tokens);
    const Matrix<T> g = gate.forward(x, one, gate_work), u = up.forward(x, one, up_work);
    const auto sigmoid = [](T v) { return 1 / (1 + std::exp(-v)); };
    Matrix<T> inner = g;
    for (std::size_t i = 0; i < inner.elements().size(); ++i)
      inner.elements()[i] *= sigmoid(g.elements()[i]) * u.elements()[i];
    const Matrix<T> out = down.forward(inner, one, down_work);
    Matrix<T> d_out(tokens, x.cols());
    for (Index n = 0; n < tokens; ++n) {
      const Index pair = work.routing.first_pair(n) + slot;
      for (Index i = 0; i < x.cols(); ++i) {
        y(n, i) += work.routing.gate(pair) * out(n, i);
        d_out(n, i) = work.routing.gate(pair) * d_y(n, i);
        work.d_gate()[std::size_t(pair)] += d_y(n, i) * out(n, i);
      }
    }
    if (!backward) continue;
    std::vector<T> d_gate(std::size_t(one.pairs()));
    Matrix<T> d_inner(tokens, inner.cols()), d_g = d_inner, d_u = d_inner;
    down.backward(inner, one, d_out, d_gate, d_inner, down_work);
    for (std::size_t i = 0; i < d_g.elements().size(); ++i) {
      const T s = sigmoid(g.elements()[i]), v = g.elements()[i], d = d_inner.elements()[i];
      d_g.elements()[i] = d * u.elements()[i] * (s + v * s * (1 - s));
      d_u.elements()[i] = d * v * s;
    }
    gate.backward(x, one, d_g, d_gate, d_x, gate_work);
    up.backward(x, one, d_u, d_gate, d_x, up_work);
    for (Index n = 0; n < tokens; ++n)  // the main pair's own has gone to d_gate above
      for (Index j = 1; j < one.first_pair(n + 1) - one.first_pair(n); ++j)
        work.d_gate()[std::size_t(work.routing.first_pair(n) + main + j - 1)] +=
            d_gate[std::size_t(one.first_pair(n) + j)];
  }
  file.expect("y", y);
  if (!backward) return;
  auto gradients = router.gradients();
  router.route_backward(x, d_x, gradients, work);
  file.expect("grad_x", d_x);
  expect_router_gradients(file, "grad.", gradients.router);
  Matrix<T> d_vectors(3 * experts, x.cols());
  for (const auto* projection : {&gate, &up, &down}) projection->expect_gradients(file, d_vectors);
  file.expect("grad.compressed", View<const T>(d_vectors.data(), experts, 3 * x.cols()));
}

Method compressed_experts() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const mole::TopK chosen{.k = file.integer("top_k")};
    if (file.flag("norm_topk_prob"))
      check_compressed(file, mole::Gate{mole::Softmax{}, chosen, mole::Renormalized{}}, execution);
    else
      check_compressed(file, mole::Gate{mole::Softmax{}, chosen, mole::Raw{}}, execution);
  });
}

}  // namespace

std::map<std::string, Method> modulation_methods() {
  return {{"mofme", mofme()}, {"mofme-uar", mofme_uar()}, {"compressed-experts", compressed_experts()}};
}

}  // namespace golden
