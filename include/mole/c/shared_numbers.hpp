// SPDX-License-Identifier: MIT
// SharedNumbers, TrainedPool: trained numbers that several layers have in common.
#pragma once

#include "mole/core/parameters.hpp"
#include "mole/core/state.hpp"
#include "mole/layer/any_linear.hpp"

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole::c {

/// A pool or a bank with its gradients. The layer that made it shows it among its own tensors.
class SharedNumbers {
 public:
  using Visitor = AnyLinear<float>::Visitor;
  using Place = AnyLinear<float>::Place;
  using StateVisitor = std::function<void(std::string_view name, StateSpan numbers)>;

  virtual ~SharedNumbers() = default;
  virtual void for_each_tensor(const Visitor& f) = 0;
  virtual void for_each_state(const StateVisitor& f) = 0;
  virtual void move_tensors(const Place& place) = 0;
  virtual void move_gradients(const Place& place) = 0;
  virtual void zero_gradients() = 0;
};

/// A Pool whose tensors are named "part.pool_A" and so on.
template <class Pool>
struct TrainedPool final : SharedNumbers {
  TrainedPool(std::string part_, Pool made)
      : part(std::move(part_)), pool(std::make_shared<Pool>(std::move(made))), gradients(pool->gradients()) {}

  void for_each_tensor(const Visitor& f) override {
    pool->for_each_tensor(
        [&](std::string_view name, View<float> parameter, View<float> gradient) {
          f(mole::detail::QualifiedName(part, name), parameter, gradient);
        },
        gradients);
  }
  void for_each_state(const StateVisitor& f) override {
    const auto visit = [&](std::string_view name, auto numbers) { f(name, StateSpan(numbers)); };
    for_each_state_within(part, *pool, visit);
  }
  void move_tensors(const Place& place) override { move(place, pool->parameters()); }
  void move_gradients(const Place& place) override { move(place, gradients); }
  void zero_gradients() override { set_zero(gradients); }

  std::string part;
  std::shared_ptr<Pool> pool;
  typename Pool::Parameters gradients;

 private:
  void move(const Place& place, typename Pool::Parameters& numbers) {
    const auto within = [&](std::string_view name, View<float> tensor) {
      return place(mole::detail::QualifiedName(part, name), tensor);
    };
    mole::detail::move_tensors<typename Pool::Parameters>(within, numbers);
  }
};

}  // namespace mole::c

#include "mole/core/macros_on.hpp"
