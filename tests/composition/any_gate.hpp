// SPDX-License-Identifier: MIT
// AnyGate: a gate of any parts behind one type, so that a layer need not be compiled for each of them.
#pragma once

#include "mole/core/call.hpp"
#include "mole/core/trace.hpp"
#include "mole/execution/reference.hpp"

#include <memory>
#include <string>
#include <utility>

namespace composition {

/// A gating of double, under Reference.
class AnyGate {
 public:
  struct Scratch {
    std::shared_ptr<void> of_gate;
  };

  template <class Gate>
  explicit AnyGate(Gate gate) : model_(std::make_shared<Model<Gate>>(std::move(gate))) {}

  void check(mole::Index experts) const { model_->check(experts); }
  mole::Index max_pairs(mole::Index tokens, mole::Index experts) const { return model_->max_pairs(tokens, experts); }
  mole::Index columns(mole::Index experts) const { return model_->columns(experts); }
  Scratch scratch(const mole::CallSize& size, mole::Arena&) const { return {model_->scratch(size)}; }
  void choose(mole::Trace<double>& trace, auto call) const {
    model_->choose(trace, call.pass, call.scratch.of_gate.get());
  }
  void backward(mole::Trace<double>& trace, auto call) const {
    model_->backward(trace, call.pass, call.scratch.of_gate.get());
  }

 private:
  struct Interface {
    virtual ~Interface() = default;
    virtual void check(mole::Index experts) const = 0;
    virtual mole::Index max_pairs(mole::Index tokens, mole::Index experts) const = 0;
    virtual mole::Index columns(mole::Index experts) const = 0;
    virtual std::shared_ptr<void> scratch(const mole::CallSize& size) const = 0;
    virtual void choose(mole::Trace<double>& trace, const mole::Pass& pass, void* scratch) const = 0;
    virtual void backward(mole::Trace<double>& trace, const mole::Pass& pass, void* scratch) const = 0;
  };

  template <class Gate>
  struct Model final : Interface {
    using Scratch = mole::OwnedScratch<Gate>;

    explicit Model(Gate g) : gate(std::move(g)) {}

    void check(mole::Index experts) const override { gate.check(experts); }
    mole::Index max_pairs(mole::Index tokens, mole::Index experts) const override {
      return gate.max_pairs(tokens, experts);
    }
    mole::Index columns(mole::Index experts) const override { return gate.columns(experts); }
    std::shared_ptr<void> scratch(const mole::CallSize& size) const override {
      return std::make_shared<Scratch>(gate, size);
    }
    void choose(mole::Trace<double>& trace, const mole::Pass& pass, void* scratch) const override {
      mole::Call call{reference, pass, **static_cast<Scratch*>(scratch)};
      gate.choose(trace, call);
    }
    void backward(mole::Trace<double>& trace, const mole::Pass& pass, void* scratch) const override {
      mole::Call call{reference, pass, **static_cast<Scratch*>(scratch)};
      gate.backward(trace, call);
    }

    Gate gate;
    mole::Reference reference;
  };

  std::shared_ptr<const Interface> model_;
};

}  // namespace composition
