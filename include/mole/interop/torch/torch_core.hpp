// SPDX-License-Identifier: MIT
// TorchCore: what a TorchLinear and the nodes of its forwards have in common.
#pragma once

#include "mole/core/trace.hpp"
#include "mole/interop/torch/torch_view.hpp"
#include "mole/layer/any_linear.hpp"
#include "mole/layer/bind_parameters.hpp"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole::detail {

/// What has been given back, to be taken again: by any number of threads.
template <class Thing>
class TorchPool : public std::enable_shared_from_this<TorchPool<Thing>> {
 public:
  /// One that is free and fits, or what make() makes. Goes back when the last pointer to it is gone.
  std::shared_ptr<Thing> take(auto fits, auto make) {
    std::unique_ptr<Thing> taken;
    {
      const std::lock_guard lock(mutex_);
      const auto found = std::ranges::find_if(free_, [&](const auto& thing) { return fits(*thing); });
      // Where none fits, the new one takes the place of one that is too small.
      const auto place = found != free_.end() || free_.empty() ? found : free_.begin();
      if (place != free_.end()) {
        if (found != free_.end()) taken = std::move(*found);
        free_.erase(place);
      }
    }
    if (!taken) taken = std::make_unique<Thing>(make());
    const auto give_back = [pool = this->shared_from_this()](Thing* thing) {
      std::unique_ptr<Thing> given(thing);
      const std::lock_guard lock(pool->mutex_);
      pool->free_.push_back(std::move(given));
    };
    return {taken.release(), give_back};
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Thing>> free_;
};

/// A layer whose parameters live in a tensor, with what its calls need.
template <class T>
struct TorchCore {
  using Layer = AnyLinear<T>;
  using Gradients = typename Layer::Gradients;
  struct Work {
    typename Layer::Workspace inside;
    Index tokens;
  };

  explicit TorchCore(Layer any)
      : layer(std::move(any)),
        layout(parameter_layout(layer)),
        numbers(torch::empty({std::int64_t(layout.size)}, torch_type<T>)),
        without_gradients(layer.new_gradients({.router = false, .experts = false})) {
    bind_parameters(layer, {numbers.template data_ptr<T>(), std::size_t(layout.size)});
  }

  /// Room for a call of `tokens`.
  std::shared_ptr<Work> work_for(Index tokens) {
    return workspaces->take([tokens](const Work& work) { return work.tokens >= tokens; },
                            [this, tokens] {
                              return Work{layer.new_workspace(tokens), tokens};
                            });
  }
  /// Zeros.
  std::shared_ptr<Gradients> zero_gradients() {
    const auto zeros = gradients->take([](const Gradients&) { return true; },
                                       [this] { return layer.new_gradients(layer.trainable()); });
    zeros->set_zero();
    return zeros;
  }

  /// Where the parameter of this place in the layout lives.
  torch::Tensor home_of(std::size_t place) const {
    const ParameterLayout::Tensor& tensor = layout.tensors[place];
    return numbers.narrow(0, tensor.first, tensor.rows * tensor.cols).view({tensor.rows, tensor.cols});
  }

  Layer layer;
  ParameterLayout layout;
  torch::Tensor numbers;        // of all parameters, in the order of the layout
  Gradients without_gradients;  // where d_x alone is wanted
  std::uint64_t renewals = 0;   // of parameters or base, by numbers from elsewhere
  std::function<double(Trace<T>&)> auxiliary_loss;
  std::shared_ptr<TorchPool<Work>> workspaces = std::make_shared<TorchPool<Work>>();
  std::shared_ptr<TorchPool<Gradients>> gradients = std::make_shared<TorchPool<Gradients>>();
};

}  // namespace mole::detail

#include "mole/core/macros_on.hpp"
