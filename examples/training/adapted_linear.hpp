// SPDX-License-Identifier: MIT
// AdaptedLinear: a method's layer in the place of a linear layer of the host.
#pragma once

#include "host/linear.hpp"
#include "training/adapted_layer.hpp"

namespace training {

/// Stands at one of the four places of a block. The layer is borrowed.
class AdaptedLinear final : public host::Linear<float> {
 public:
  explicit AdaptedLinear(AdaptedLayer& layer) : layer_(layer) {}

  host::Index in() const override { return layer_.layer().in(); }
  host::Index out() const override { return layer_.layer().out(); }

  void forward(host::ConstView<float> x, host::View<float> y) override { layer_.forward(x, y); }
  void backward(host::ConstView<float> x, host::ConstView<float> d_y, host::View<float> d_x) override {
    layer_.backward(x, d_y, d_x);
  }

 private:
  AdaptedLayer& layer_;
};

}  // namespace training
