// SPDX-License-Identifier: MIT
// CallableBase: any function of the host as a base: quantized, remote, of another library.
#pragma once

#include "mole/base/base_policy.hpp"

#include <concepts>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Marks a CallableBase without backward.
struct NoBackward {};

/// y = forward(x), and d_x += backward(x, d_y) if the host offers it.
///
///   forward(View<const T> x, View<T> y)                         y [N x O], overwritten
///   backward(View<const T> x, View<const T> d_y, View<T> d_x)   d_x [N x I], accumulated
///
/// The callables run on the caller's thread, once per layer call. Without backward the layer still trains its experts,
/// as long as the caller does not ask for d_x.
template <class T, class Forward, class Backward = NoBackward>
class CallableBase {
 public:
  using Scalar = T;

  CallableBase(Index in, Index out, Forward forward, Backward backward = {})
      : in_(in), out_(out), forward_(std::move(forward)), backward_(std::move(backward)) {}

  Index in() const { return in_; }
  Index out() const { return out_; }

  void forward(View<const T> x, View<T> y, auto) const { forward_(x, y); }
  void backward(View<const T> x, View<const T> d_y, View<T> d_x, NoParameters&,
                auto) const requires std::invocable<const Backward&, View<const T>, View<const T>, View<T>> {
    if (d_x) backward_(x, d_y, d_x);
  }

 private:
  Index in_, out_;
  [[no_unique_address]] Forward forward_;
  [[no_unique_address]] Backward backward_;
};

/// T is explicit, the callables are deduced.
template <class T, class Forward, class Backward = NoBackward>
CallableBase<T, Forward, Backward> callable_base(Index in, Index out, Forward forward, Backward backward = {}) {
  return {in, out, std::move(forward), std::move(backward)};
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
