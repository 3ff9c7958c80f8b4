// SPDX-License-Identifier: MIT
// Must compile: otherwise the errors of its neighbors prove nothing.
#include "calls.hpp"

#include <Eigen/Core>

int main() {
  call_a_layer();

  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> row_major(4, 3);
  mole::View<const float> view(row_major);
  mole::MixtureLinear inference{parts::InferenceRouter{}, parts::gate(), parts::experts(), parts::base()};
  auto inference_work = inference.workspace(4);
  mole::Matrix<float> y(4, 2);
  inference.forward(view, y, inference_work);
  mole::ExpertLinear external{parts::experts(), parts::base()};
  auto external_work = external.workspace(4);
  external.apply(view, inference_work.routing, y, external_work);
}
