// SPDX-License-Identifier: MIT
// Must compile: otherwise the errors of its neighbors prove nothing.
#include "parts.hpp"

#include <Eigen/Core>

int main() {
  mole::MixtureLinear layer{parts::router(), parts::gate(), parts::experts(), parts::base()};
  auto work = layer.workspace(4);
  auto gradients = layer.gradients();
  mole::Matrix<float> x(4, 3), y(4, 2), d_x(4, 3);
  layer.forward(x, y, work);
  layer.backward(x, y, d_x, gradients, work);

  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> row_major(4, 3);
  mole::View<const float> view(row_major);
  mole::MixtureLinear inference{parts::InferenceRouter{}, parts::gate(), parts::experts(), parts::base()};
  auto inference_work = inference.workspace(4);
  inference.forward(view, y, inference_work);
  mole::ExpertLinear external{parts::experts(), parts::base()};
  auto external_work = external.workspace(4);
  external.apply(view, work.routing, y, external_work);
}
