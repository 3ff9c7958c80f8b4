// SPDX-License-Identifier: MIT
// usual_gates_pass_the_gradient_check(): layers of twelve usual gates; tests/composition has all gates.
#pragma once

#include "mole/layer/check_gradients.hpp"
#include "mole/loss/load_balance.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

namespace support {

/// Softmax and Sigmoid by All and TopK by Raw, Renormalized and Unit: each passes the gradient check under
/// `execution`, with a loss.
template <class Execution>
void usual_gates_pass_the_gradient_check(Execution execution, const LayerSizes& sizes) {
  using namespace mole;
  const auto check = [&](auto gate) {
    auto layer = routed_layer<double>(sizes, gate, execution);
    const Pass training{.training = true, .seed = 3, .layer = 2, .step = 5};
    const GradientReport report = check_gradients(layer, {.pass = training}, [](auto& trace) {
      return load_balance(trace, {.coefficient = 0.3, .count = BalanceCount::gates});
    });
    INFO(report.worst_tensor << " " << report.worst);
    CHECK(report.worst < 1e-8);
    CHECK(report.checked > 100);
    CHECK(report.moved * 20 < report.checked);
  };
  const auto weighs = [&](auto score, auto select) {
    check(Gate{score, select, Raw{}});
    check(Gate{score, select, Renormalized{}});
    check(Gate{score, select, Unit{}});
  };
  const auto selects = [&](auto score) {
    weighs(score, All{});
    weighs(score, TopK{2});
  };
  selects(Softmax{0.7});
  selects(Sigmoid{});
}

}  // namespace support
