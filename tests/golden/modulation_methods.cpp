// SPDX-License-Identifier: MIT
// Experts that modulate what a shared block makes: mofme, mofme-uar.
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

template <class T>
mole::LinearParameters<T> load_linear(const Comparison<T>& file, const std::string& name) {
  return {file.matrix(name + ".weight"), file.matrix(name + ".bias")};
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
        d_x(t, i) += s.inverse[std::size_t(t)] *
                     (d_n(t, i) * parameters_.norm.weight(0, i) - mean - along * s.standard(t, i));
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
  mole::MemoryBlock memory(mole::bytes_of([&](mole::Arena& arena) { return calibration.scratch(samples, experts, arena); }),
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

}  // namespace

std::map<std::string, Method> modulation_methods() { return {{"mofme", mofme()}, {"mofme-uar", mofme_uar()}}; }

}  // namespace golden
