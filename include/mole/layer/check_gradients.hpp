// SPDX-License-Identifier: MIT
// check_gradients(): compares a layer's backward with finite differences of its forward.
#pragma once

#include "mole/core/matrix.hpp"
#include "mole/core/random.hpp"
#include "mole/core/trace.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

namespace mole {

/// Options of check_gradients().
struct CheckGradientsOptions {
  Index tokens = 7;
  double step = 1e-5;      ///< of the central differences
  std::uint64_t seed = 1;  ///< of x and of the upstream gradient
  Pass pass = {};          ///< of every forward call
};

/// The result of a gradient check. A difference is measured against the largest gradient of its tensor.
struct GradientReport {
  double worst = 0;          ///< largest relative difference
  std::string worst_tensor;  ///< where: "x" or a parameter's name
  Index checked = 0;         ///< numbers compared
  Index moved = 0;           ///< numbers left out because the step changed who is chosen: there is no derivative there
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
}  // namespace detail

/// Compares layer.backward with central differences of <y, d_y> + loss(trace), for x and every parameter.
///
///   x ~ U(-1, 1) [tokens x I], d_y ~ U(-1, 1) [tokens x O]: a random upstream gradient, which no wrong formula
///   survives
///
///   loss(trace) -> double is called between forward and backward, as in training; it adds its gradients to the trace
///
/// Meant for layers of double: with the default step, differences of about 1e-8 are rounding errors. Takes two forward
/// calls per number, so keep the layer small. The layer's parameters are unchanged when it returns.
template <class Layer, class Loss>
GradientReport check_gradients(Layer& layer, const CheckGradientsOptions& check, Loss loss) {
  using T = typename Layer::Scalar;
  Rng rng(check.seed);
  Matrix<T> x(check.tokens, layer.in()), d_x(check.tokens, layer.in());
  Matrix<T> y(check.tokens, layer.out()), d_y(check.tokens, layer.out());
  fill_uniform(x.view(), 1, rng);
  fill_uniform(d_y.view(), 1, rng);
  auto work = layer.workspace(check.tokens);
  auto gradients = layer.gradients({.router = true, .experts = true, .base = true});

  const auto value = [&] {
    layer.forward(x, y, work, check.pass);
    double sum = loss(static_cast<Trace<T>&>(work));
    for (std::size_t i = 0; i < y.elements().size(); ++i) sum += double(y.elements()[i]) * double(d_y.elements()[i]);
    return sum;
  };
  value();
  const std::vector<int> chosen = detail::chosen_set(work.routing);
  layer.backward(x, d_y, d_x, gradients, work);

  GradientReport report;
  const auto compare = [&](std::string_view name, View<T> values, View<const T> found) {
    double largest = 0;
    for (Index r = 0; r < found.rows(); ++r)
      for (T g : found.row(r)) largest = std::max(largest, std::abs(double(g)));
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
        const double difference = std::abs(expected - double(found(r, c))) / std::max(1.0, largest);
        if (difference <= report.worst) continue;
        report.worst = difference;
        report.worst_tensor = name;
      }
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
