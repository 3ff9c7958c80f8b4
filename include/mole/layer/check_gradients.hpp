// SPDX-License-Identifier: MIT
// check_gradients(): compares a layer's backward with finite differences of its forward.
#pragma once

#include "mole/core/matrix.hpp"
#include "mole/core/random.hpp"
#include "mole/core/trace.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Options of check_gradients().
struct CheckGradientsOptions {
  Index tokens = 7;
  double step = 1e-5;      ///< of the central differences
  std::uint64_t seed = 1;  ///< of x and of the upstream gradient
  Pass pass = {};          ///< of every forward call
};

/// The result of a gradient check. A difference is measured against the largest gradient of its tensor, the expected or
/// the found one, after what rounding may have caused is taken from it.
struct GradientReport {
  double worst = 0;          ///< largest relative difference
  std::string worst_tensor;  ///< where: "x" or a parameter's name
  Index checked = 0;         ///< numbers compared
  Index moved = 0;           ///< numbers left out because the step changed who is chosen: there is no derivative
  std::vector<std::string> randomized;  ///< parameters that were all 0, as B is in a fresh layer, and would hide others
  std::vector<std::string>
      unseen;  ///< tensors whose largest gradient is below ten times the rounding of the differences

  /// Was every gradient seen, and is none off by more than `tolerance`?
  bool passed(double tolerance) const { return checked > 0 && unseen.empty() && worst <= tolerance; }
};

namespace detail {
/// The pairs of a routing without their gates: the decision of a selection.
template <class T>
std::vector<int> chosen_set(const Routing<T>& routing) {
  std::vector<int> chosen;
  for (Index n = 0; n < routing.tokens(); ++n) {
    std::vector<int> of_token(routing.experts_of(n).begin(), routing.experts_of(n).end());
    std::sort(of_token.begin(), of_token.end());
    chosen.push_back(-1);
    chosen.insert(chosen.end(), of_token.begin(), of_token.end());
  }
  return chosen;
}

/// Copies of the parameters of a layer, which come back when the check ends or throws.
template <class Layer>
class KeptParameters {
 public:
  using T = typename Layer::Scalar;

  explicit KeptParameters(Layer& layer) : layer_(layer) {
    layer.for_each_tensor([&](std::string_view, View<T> parameter) {
      copies_.emplace_back(parameter.rows(), parameter.cols());
      copy(parameter, copies_.back().view());
    });
  }
  KeptParameters(const KeptParameters&) = delete;
  KeptParameters& operator=(const KeptParameters&) = delete;
  ~KeptParameters() {
    auto next = copies_.begin();
    layer_.for_each_tensor([&](std::string_view, View<T> parameter) { copy(*next++, parameter); });
  }

 private:
  Layer& layer_;
  std::vector<Matrix<T>> copies_;
};

/// Fills each parameter that is all 0 with draws from U(-1/2, 1/2), and returns their names.
template <class Layer>
std::vector<std::string> randomize_zeros(Layer& layer, Rng& rng) {
  std::vector<std::string> randomized;
  layer.for_each_tensor([&]<class T>(std::string_view name, View<T> parameter) {
    for (Index r = 0; r < parameter.rows(); ++r)
      for (T number : parameter.row(r))
        if (number != 0) return;
    fill_uniform(parameter, 0.5, rng);
    randomized.emplace_back(name);
  });
  return randomized;
}
}  // namespace detail

/// Compares layer.backward with central differences of <y, d_y> + loss(trace), for x and every parameter.
///
///   x ~ U(-1, 1) [tokens x I], d_y ~ U(-1, 1) [tokens x O]: a random upstream gradient, which no wrong formula
///   survives
///
///   loss(trace) -> double is called between forward and backward, as in training; it adds its gradients to the trace
///
/// Meant for layers of double: with the default step, differences of about 1e-8 are rounding errors. Takes two forward
/// calls per number, so keep the layer small. A parameter that is all 0 is filled with random numbers for the check, as
/// it would hide wrong gradients of others: with B = 0 nothing reaches A or the router. The layer's parameters are
/// unchanged when it returns or throws. What float, a step that is too small or outputs that are too large drown in
/// rounding is named in `unseen`. Throws Error(option) for no tokens and a step that is not above 0.
template <class Layer, class Loss>
GradientReport check_gradients(Layer& layer, const CheckGradientsOptions& check, Loss loss) {
  using T = typename Layer::Scalar;
  require(check.tokens >= 1 && check.step > 0, ErrorCode::option,
          "check_gradients: expected at least 1 token and a step above 0, found ", check.tokens, " and ", check.step);
  Rng rng(check.seed);
  Matrix<T> x(check.tokens, layer.in()), d_x(check.tokens, layer.in());
  Matrix<T> y(check.tokens, layer.out()), d_y(check.tokens, layer.out());
  fill_uniform(x.view(), 1, rng);
  fill_uniform(d_y.view(), 1, rng);
  auto work = layer.workspace(check.tokens);
  auto gradients = layer.gradients({.router = true, .experts = true, .base = Layer::has_trainable_base});
  const detail::KeptParameters<Layer> kept(layer);
  GradientReport report;
  report.randomized = detail::randomize_zeros(layer, rng);

  double size = 0;  // of the sum, for its rounding
  const auto value = [&] {
    layer.forward(x, y, work, check.pass);
    double sum = loss(static_cast<Trace<T>&>(work));
    size = std::abs(sum);
    for (std::size_t i = 0; i < y.elements().size(); ++i) {
      const double term = double(y.elements()[i]) * double(d_y.elements()[i]);
      sum += term, size += std::abs(term);
    }
    return sum;
  };
  value();
  const std::vector<int> chosen = detail::chosen_set(work.routing);
  const double rounding = 8 * double(std::numeric_limits<T>::epsilon()) * size / check.step;
  layer.backward(x, d_y, d_x, gradients, work);

  const auto compare = [&](std::string_view name, View<T> values, View<const T> found) {
    double largest = 0, difference = 0;
    for (Index r = 0; r < values.rows(); ++r)
      for (Index c = 0; c < values.cols(); ++c) {
        const T before = values(r, c);
        bool moved = false;
        const auto value_at = [&](double offset) {
          values(r, c) = T(double(before) + offset);
          const double result = value();
          moved = moved || detail::chosen_set(work.routing) != chosen;
          return result;
        };
        const double expected = (value_at(check.step) - value_at(-check.step)) / (2 * check.step);
        values(r, c) = before;
        if (moved) {
          ++report.moved;
          continue;
        }
        ++report.checked;
        const double off = std::abs(expected - double(found(r, c)));
        largest = std::max({largest, std::abs(expected), std::abs(double(found(r, c)))});
        difference = std::isfinite(off) ? std::max(difference, off) : std::numeric_limits<double>::infinity();
      }
    const double excess = std::max(0.0, difference - rounding);
    if (const double relative = excess > 0 && std::isfinite(excess) ? excess / largest : excess;
        relative > report.worst) {
      report.worst = relative;
      report.worst_tensor = name;
    }
    if (largest > 0 && largest < 10 * rounding) report.unseen.emplace_back(name);
  };
  compare("x", x, d_x);
  layer.for_each_tensor(
      [&](std::string_view name, View<T> parameter, View<T> gradient) { compare(name, parameter, gradient); },
      gradients);
  return report;
}

/// Without an auxiliary loss.
template <class Layer>
GradientReport check_gradients(Layer& layer, const CheckGradientsOptions& check = {}) {
  return check_gradients(layer, check, [](const auto&) { return 0.0; });
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
