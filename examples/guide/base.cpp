// SPDX-License-Identifier: MIT
// A user's own base: a diagonal weight.
#include <mole/layer/check_gradients.hpp>
#include <mole/mole.hpp>

#include <cstdio>
#include <utility>
#include <vector>

/// y = diagonal o x.
class DiagonalBase {
 public:
  using Scalar = double;
  using T = Scalar;

  explicit DiagonalBase(std::vector<T> diagonal) : diagonal_(std::move(diagonal)) {}

  mole::Index in() const { return mole::Index(diagonal_.size()); }
  mole::Index out() const { return in(); }

  void forward(mole::View<const T> x, mole::View<T> y, auto) const {
    for (mole::Index n = 0; n < x.rows(); ++n)
      for (mole::Index i = 0; i < in(); ++i) y(n, i) = diagonal_[std::size_t(i)] * x(n, i);
  }
  void backward(mole::View<const T>, mole::View<const T> d_y, mole::View<T> d_x, mole::NoParameters&, auto) const {
    if (!d_x) return;
    for (mole::Index n = 0; n < d_y.rows(); ++n)
      for (mole::Index i = 0; i < in(); ++i) d_x(n, i) += diagonal_[std::size_t(i)] * d_y(n, i);
  }

 private:
  std::vector<T> diagonal_;
};
static_assert(mole::TrainableBasePolicy<DiagonalBase>);

int main() {
  mole::Rng rng(1);
  auto layer = mole::mola({.experts = 4, .rank = 2, .k = 2}, DiagonalBase({1, -2, 0.5, 3, 1.5}), rng);
  fill_uniform(layer.experts().parameters().lora_B.view(), 1, rng);  // B = 0 would hide a wrong gradient
  const mole::GradientReport report = mole::check_gradients(layer);
  std::printf("worst relative difference %.0e, %td numbers checked\n", report.worst, report.checked);
  return report.passed(1e-7) ? 0 : 1;
}
