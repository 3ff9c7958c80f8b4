// SPDX-License-Identifier: MIT
// A user's own trainable router: one scalar gain per expert and a learned direction, with scratch.
#include <mole/layer/check_gradients.hpp>
#include <mole/mole.hpp>

#include <cmath>
#include <cstdio>

/// logit_e = gain_e tanh(<x, direction>).
class GainRouter {
 public:
  using Scalar = double;
  using T = Scalar;

  struct Parameters {
    mole::Matrix<T> direction, gain;  // [1 x I], [1 x E]

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("direction", p.direction...);
      f("gain", p.gain...);
    }
  };
  struct Scratch {
    mole::View<T> h;  // [tokens x 1], what backward needs of forward
  };

  GainRouter(mole::Index in, mole::Index experts, mole::Rng& rng)
      : parameters_{mole::Matrix<T>(1, in), mole::Matrix<T>(1, experts)} {
    fill_uniform(parameters_.direction.view(), 1, rng);
    fill_uniform(parameters_.gain.view(), 1, rng);
  }

  mole::Index in() const { return parameters_.direction.cols(); }
  mole::Index outputs() const { return parameters_.gain.cols(); }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }
  Scratch scratch(const mole::CallSize& size, mole::Arena& arena) const { return {arena.matrix<T>(size.tokens, 1)}; }

  void forward(mole::View<const T> x, mole::View<T> logits, auto call) const {
    const mole::View<T> h = call.scratch.h.top(x.rows());
    call.execution.product_nt(x, parameters_.direction, h);
    for (mole::Index n = 0; n < x.rows(); ++n) {
      h(n, 0) = std::tanh(h(n, 0));
      for (mole::Index e = 0; e < logits.cols(); ++e) logits(n, e) = parameters_.gain(0, e) * h(n, 0);
    }
  }

  /// Adds to the gradients and to d_x; an empty gradient is frozen, an empty d_x is not wanted.
  void backward(mole::View<const T> x, mole::View<const T> d_logits, mole::View<T> d_x, Parameters& gradients,
                auto call) const {
    const mole::View<T> h = call.scratch.h.top(x.rows());
    for (mole::Index n = 0; n < x.rows(); ++n) {
      T d_h = 0;
      for (mole::Index e = 0; e < d_logits.cols(); ++e) {
        d_h += d_logits(n, e) * parameters_.gain(0, e);
        if (!gradients.gain.empty()) gradients.gain(0, e) += d_logits(n, e) * h(n, 0);
      }
      d_h *= 1 - h(n, 0) * h(n, 0);
      for (mole::Index i = 0; i < x.cols(); ++i) {
        if (!gradients.direction.empty()) gradients.direction(0, i) += d_h * x(n, i);
        if (d_x) d_x(n, i) += d_h * parameters_.direction(0, i);
      }
    }
  }

 private:
  Parameters parameters_;
};
static_assert(mole::TrainableRouterPolicy<GainRouter>);

int main() {
  mole::Rng rng(1);
  mole::Matrix<double> weights(6, 5);
  fill_uniform(weights.view(), 1, rng);
  mole::MixtureLinear layer{
      GainRouter(5, 4, rng), mole::Gate{mole::Softmax{}, mole::TopK{.k = 2}, mole::Renormalized{}},
      mole::LowRank<mole::DenseFactors<double>>{{.in = 5, .out = 6, .experts = 4, .rank = 2}, rng},
      mole::DenseBase{weights}};
  fill_uniform(layer.experts().parameters().lora_B.view(), 1, rng);  // B = 0 would hide a wrong gradient
  const mole::GradientReport report = mole::check_gradients(layer);
  std::printf("worst relative difference %.0e in %s, %td numbers checked\n", report.worst, report.worst_tensor.c_str(),
              report.checked);
  return report.passed(1e-7) ? 0 : 1;
}
