// SPDX-License-Identifier: MIT
// expect_layer(), expect_loss(): the comparisons of golden files of linear layers with a router.
#pragma once

#include "golden/parameters.hpp"

namespace golden {

template <class T>
auto load_base(const Comparison<T>& file) {
  return mole::DenseBase(file.matrix("base.weight"), file.has("base.bias") ? file.matrix("base.bias") : Matrix<T>{});
}

/// y, d_x and the gradients of sum(y * grad_y).
template <class T, class Layer>
void expect_layer(Comparison<T>& file, Layer& layer, typename Layer::Workspace& work, const mole::Pass& pass,
                  const ExpertFiles<T>& names) {
  const Matrix<T> x = file.matrix("x"), d_y = file.matrix("grad_y");
  Matrix<T> y(x.rows(), layer.out()), d_x(x.rows(), layer.in());
  auto gradients = layer.gradients();
  layer.forward(x, y, work, pass);
  layer.backward(x, d_y, d_x, gradients, work);
  file.expect("y", y);
  file.expect("grad_x", d_x);
  names.expect_gradients(file, "grad.", layer.experts(), gradients.experts);
  if constexpr (requires { gradients.router.weight; }) {
    expect_gate<T>(file, work);
    expect_router_gradients(file, "grad.", gradients.router);
  }
}

/// A loss of the file and its gradients; `loss(trace)` gives its value, expect_router(prefix, gradients) compares the
/// router's.
template <class T, class Layer, class Loss, class ExpectRouter>
void expect_loss(Comparison<T>& file, const std::string& name, Layer& layer, typename Layer::Workspace& work,
                 const mole::Pass& pass, Loss loss, ExpectRouter expect_router) {
  if (!file.has("loss." + name)) return;
  const Matrix<T> x = file.matrix("x");
  Matrix<T> d_x(x.rows(), x.cols());
  auto gradients = layer.gradients();
  layer.route(x, work, pass);
  file.expect_number("loss." + name, loss(static_cast<mole::Trace<T>&>(work)));
  layer.route_backward(x, d_x, gradients, work);
  file.expect_gradient("grad_loss." + name + ".x", d_x);
  expect_router("grad_loss." + name + ".", gradients.router);
}

/// Of a linear router.
template <class T, class Layer, class Loss>
void expect_loss(Comparison<T>& file, const std::string& name, Layer& layer, typename Layer::Workspace& work,
                 const mole::Pass& pass, Loss loss) {
  expect_loss(file, name, layer, work, pass, loss, [&](const std::string& prefix, const auto& gradients) {
    expect_router_gradients(file, prefix, gradients);
  });
}

}  // namespace golden
