// SPDX-License-Identifier: MIT
// The swap: a mixture layer where the host expects a linear layer of its own.
#pragma once

#include "host/linear.hpp"
#include "mole/layer/any_linear.hpp"
#include "mole/loss/load_balance.hpp"

#include <utility>

namespace adapt {

/// What all adapted layers of a model are told about the current step, and what they tell the program.
struct StepContext {
  mole::Batch batch{};        // mode and random key of the step; `layer` is filled in by each layer
  double balance = 0;         // coefficient of the balance loss; 0: none
  double auxiliary_loss = 0;  // summed over the layers by backward
};

/// Stands at one of the four places of a block.
class AdaptedLinear final : public host::Linear<float> {
 public:
  AdaptedLinear(mole::AnyLinear<float> layer, std::uint64_t number, StepContext& context)
      : layer_(std::move(layer)), number_(number), context_(context) {}

  host::Index in() const override { return layer_.in(); }
  host::Index out() const override { return layer_.out(); }

  void forward(host::ConstView<float> x, host::View<float> y) override {
    mole::Batch batch = context_.batch;
    batch.layer = number_;
    layer_.forward(x, y, batch);
  }

  void backward(host::ConstView<float> x, host::ConstView<float> d_y, host::View<float> d_x) override {
    if (context_.balance > 0)
      context_.auxiliary_loss += mole::load_balance(layer_.trace(), {.coefficient = context_.balance});
    layer_.backward(x, d_y, d_x);
  }

  mole::AnyLinear<float>& layer() { return layer_; }

 private:
  mole::AnyLinear<float> layer_;
  std::uint64_t number_;
  StepContext& context_;
};

}  // namespace adapt
