// SPDX-License-Identifier: MIT
// A user's own experts: each adds a vector, whatever the token is.
#include <mole/layer/check_gradients.hpp>
#include <mole/mole.hpp>

#include <cstdio>

/// y_n += sum over the chosen e of gate_ne shift_e.
class ShiftExperts {
 public:
  using Scalar = double;
  using T = Scalar;
  struct Parameters {
    mole::Matrix<T> shift;  // [E x O]

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("shift", p.shift...);
    }
  };

  ShiftExperts(mole::Index experts, mole::Index in, mole::Index out)
      : in_(in), parameters_{mole::Matrix<T>(experts, out)} {}

  mole::Index experts() const { return parameters_.shift.rows(); }
  mole::Index in() const { return in_; }
  mole::Index out() const { return parameters_.shift.cols(); }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  void forward(mole::View<const T>, mole::View<const T>, const mole::Routing<T>& routing, mole::View<T> y, auto) const {
    for (mole::Index p = 0; p < routing.pairs(); ++p)
      for (mole::Index o = 0; o < out(); ++o)
        y(routing.token(p), o) += routing.gate(p) * parameters_.shift(routing.expert(p), o);
  }

  void backward(mole::View<const T>, const mole::Routing<T>& routing, mole::View<const T> d_y, std::span<T> d_gate,
                mole::View<T>, Parameters& gradients, auto) const {
    for (mole::Index p = 0; p < routing.pairs(); ++p)
      for (mole::Index o = 0; o < out(); ++o) {
        const T d = d_y(routing.token(p), o);
        if (!d_gate.empty()) d_gate[std::size_t(p)] += d * parameters_.shift(routing.expert(p), o);
        if (!gradients.shift.empty()) gradients.shift(routing.expert(p), o) += d * routing.gate(p);
      }
  }

 private:
  mole::Index in_;
  Parameters parameters_;
};
static_assert(mole::TrainableExpertPolicy<ShiftExperts>);

int main() {
  mole::Rng rng(1);
  mole::Matrix<double> weights(6, 5);
  fill_uniform(weights.view(), 1, rng);
  mole::MixtureLinear layer{mole::LinearRouter<double>{{.in = 5, .experts = 4}, rng},
                            mole::Gate{mole::Softmax{}, mole::TopK{.k = 2}, mole::Renormalized{}},
                            ShiftExperts(4, 5, 6), mole::DenseBase{weights}};
  fill_uniform(layer.experts().parameters().shift.view(), 1, rng);
  const mole::GradientReport report = mole::check_gradients(layer);
  std::printf("worst relative difference %.0e, %td numbers checked\n", report.worst, report.checked);
  return report.passed(1e-7) ? 0 : 1;
}
