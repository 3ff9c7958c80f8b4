// SPDX-License-Identifier: MIT
// Moments, MomentOptimizer: what an optimizer keeps per tensor between steps.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/view.hpp"
#include "mole/optim/parameter_group.hpp"

#include <array>
#include <cstdio>
#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// `Count` numbers of type State per element of every trained tensor, those of one kind in one contiguous buffer.
///
/// A *walk* is a callable: walk(visitor) calls visitor(std::string_view name, View<T> parameter, View<T> gradient) for
/// each tensor, always in the same order. A tensor whose gradient is empty is frozen: skipped, without state.
template <class State, int Count>
class Moments {
 public:
  using Spans = std::array<std::span<State>, std::size_t(Count)>;

  bool reserved() const { return reserved_; }

  /// Makes zero state for the tensors of `walk` and drops the previous state.  O(parameters), the only allocation.
  template <class Walk>
  void reserve(Walk&& walk) {
    tensors_.clear();
    std::size_t size = 0;
    for_each_trained(walk, [&](std::string_view name, auto parameter, auto) {
      tensors_.push_back({std::string(name), size, std::size_t(parameter.size())});
      size += std::size_t(parameter.size());
    });
    for (std::vector<State>& buffer : buffers_) buffer.assign(size, State(0));
    reserved_ = true;
  }

  /// Throws Error(shape) with the name of the tensor unless `walk` visits exactly the tensors that reserve() saw.
  template <class Walk>
  void check(Walk&& walk) const;

  /// f(name, parameter, gradient, spans) for each trained tensor; its state has the order of the parameter, row-major.
  template <class Walk, class F>
  void for_each(Walk&& walk, F&& f) {
    std::size_t next = 0;
    for_each_trained(walk, [&](std::string_view name, auto parameter, auto gradient) {
      f(name, parameter, gradient, spans_of(tensors_[next++]));
    });
  }

  /// f(name, span, ...) for the state of each trained tensor, Count spans: to save or to restore it.
  template <class F>
  void for_each_state(F&& f) {
    for (const Tensor& tensor : tensors_)
      std::apply([&](auto... spans) { f(std::string_view(tensor.name), spans...); }, spans_of(tensor));
  }

 private:
  struct Tensor {
    std::string name;
    std::size_t begin, size;
  };

  template <class Walk, class F>
  static void for_each_trained(Walk&& walk, F&& f) {
    walk([&]<class T>(std::string_view name, View<T> parameter, View<T> gradient) {
      if (gradient) f(name, parameter, gradient);
    });
  }

  Spans spans_of(const Tensor& tensor) {
    Spans spans;
    for (std::size_t i = 0; i < spans.size(); ++i) spans[i] = std::span(buffers_[i]).subspan(tensor.begin, tensor.size);
    return spans;
  }

  std::vector<Tensor> tensors_;
  std::array<std::vector<State>, std::size_t(Count)> buffers_;
  bool reserved_ = false;
};

template <class State, int Count>
template <class Walk>
void Moments<State, Count>::check(Walk&& walk) const {
  const auto fail = [](const std::string& expected, const std::string& found) {
    detail::fail(ErrorCode::shape, {"optimizer: expected ", expected, ", found ", found});
  };
  const auto quoted = [](std::string_view name) { return "'" + std::string(name) + "'"; };

  std::size_t next = 0;
  for_each_trained(walk, [&](std::string_view name, auto parameter, auto gradient) {
    if (next == tensors_.size()) fail("no trained tensor after the first step's", quoted(name));
    const Tensor& tensor = tensors_[next++];
    if (tensor.name != name) fail(quoted(tensor.name) + " as at the first step", quoted(name));
    if (Index(tensor.size) != parameter.size())
      fail(std::to_string(tensor.size) + " elements of " + quoted(name), std::to_string(parameter.size()));
    if (parameter.rows() != gradient.rows() || parameter.cols() != gradient.cols())
      fail("a gradient of the shape of " + quoted(name),
           std::to_string(gradient.rows()) + " x " + std::to_string(gradient.cols()));
  });
  if (next != tensors_.size()) fail(quoted(tensors_[next].name) + " as at the first step", "the end of the walk");
}

/// The steps of every optimizer over Moments, of which update(name, parameter, gradient, state) moves one tensor.
template <class Optimizer, class State, int Count>
class MomentOptimizer {
 public:
  /// One step: for all tensors of `walk`, ...
  template <class Walk>
  void step(Walk&& walk) {
    if (!moments_.reserved()) reserve(walk);
    moments_.check(walk);
    ++steps_;
    moments_.for_each(walk, [&](std::string_view name, auto parameter, auto gradient, auto state) {
      static_cast<Optimizer&>(*this).update(name, parameter, gradient, state);
    });
  }
  /// ... or of a layer.
  template <class Layer, class Gradients>
  void step(Layer& layer, Gradients& gradients) {
    step([&](auto&& f) { layer.for_each_tensor(f, gradients); });
  }
  /// ... or of a layer that holds its gradients, such as AnyLinear.
  template <class Layer>
  requires requires { typename Layer::Visitor; }
  void step(Layer& layer) {
    step([&](auto&& f) { layer.for_each_tensor(std::ref(f)); });
  }

  /// Makes zero state for the tensors of `walk`, as the first step does. Throws Error(option) for a group of parameters
  /// that applies to none of them.
  template <class Walk>
  void reserve(Walk&& walk) {
    check_groups(static_cast<const Optimizer&>(*this).groups(), walk);
    moments_.reserve(walk);
  }

  /// Steps taken so far. To resume: reserve(), fill the state through for_each_state(), set_steps().
  Index steps() const { return steps_; }
  void set_steps(Index steps) {
    require(steps >= 0, ErrorCode::option, "optimizer: expected at least 0 steps, found ", steps);
    steps_ = steps;
  }

  /// f(std::string_view name, std::span<State>...) with the state of each trained tensor, Count spans.
  template <class F>
  void for_each_state(F&& f) {
    moments_.for_each_state(f);
  }

 protected:
  /// "name, number value, ...", for a checkpoint to compare.
  static std::string described(std::string name, std::initializer_list<std::pair<const char*, double>> numbers) {
    for (const auto& [what, value] : numbers) {
      char text[32];
      std::snprintf(text, sizeof text, "%.9g", value);
      name += std::string(", ") + what + " " + text;
    }
    return name;
  }

 private:
  Moments<State, Count> moments_;
  Index steps_ = 0;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
