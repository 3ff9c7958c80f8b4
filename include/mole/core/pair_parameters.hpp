// SPDX-License-Identifier: MIT
// PairParameters, pair_in_place(): the parameters of a policy that is made of two others.
#pragma once

#include "mole/core/parameters.hpp"

#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The parameters, or the gradients, of First and Second: tensors named "first..." and "second...".
template <class First, class Second>
struct PairParameters {
  ParametersOf<First> first;
  ParametersOf<Second> second;

  template <class F, class... P>
  static void for_each_tensor(F&& f, P&... p) {
    for_each_tensor_within<ParametersOf<First>>("first", f, p.first...);
    for_each_tensor_within<ParametersOf<Second>>("second", f, p.second...);
  }
};

namespace detail {
/// The same in place, in both policies: visited without a copy. A and B are references, or themselves parameters in
/// place. Converts to the pair, which owns its tensors, to make gradients of the same shapes.
template <class Pair, class A, class B>
struct PairInPlace {
  A first;
  B second;
  operator Pair() const { return {first, second}; }
  template <class F, class... P>
  static void for_each_tensor(F&& f, P&... p) {
    Pair::for_each_tensor(f, p...);
  }
};

template <class First, class Second>
auto pair_in_place(First& first, Second& second) {
  using Pair = PairParameters<std::remove_const_t<First>, std::remove_const_t<Second>>;
  return PairInPlace<Pair, decltype(parameters_of(first)), decltype(parameters_of(second))>{parameters_of(first),
                                                                                            parameters_of(second)};
}
}  // namespace detail

}  // namespace mole

#include "mole/core/macros_on.hpp"
