// SPDX-License-Identifier: MIT
// bind_parameters(), bind_gradients(): parameters and gradients of a layer in memory of the host.
#pragma once

#include "mole/layer/any_linear.hpp"
#include "mole/layer/parameter_layout.hpp"

#include <algorithm>
#include <span>
#include <string_view>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Whose numbers both have from now on?
enum class BoundNumbers {
  of_layer,  ///< they are written to the memory
  of_memory  ///< what stands there already, read from a file, say
};

namespace detail {
/// A move of tensors into `array`, as `layout` says.
template <class T>
auto places_in(const ParameterLayout& layout, std::span<T> array, BoundNumbers numbers) {
  return [&layout, array, numbers](std::string_view name, View<T> tensor) {
    const View<T> place = layout.of(name, array);
    if (numbers == BoundNumbers::of_memory)
      for (Index r = 0; r < place.rows(); ++r) std::copy_n(place.row_data(r), place.cols(), tensor.row_data(r));
    return place;
  };
}

template <class Layer, class T>
ParameterLayout checked_layout(const char* call, Layer& layer, std::span<T> array) {
  ParameterLayout layout = parameter_layout(layer);
  require_equal(ErrorCode::shape, call, layout.size, Index(array.size()));
  return layout;
}
}  // namespace detail

/// The parameters of `layer` live in `parameters` from now on, an array of parameter_layout(layer).size numbers that
/// must outlive it: what the host's optimizer or its file writes there, the next call reads, and the other way round.
/// Nothing is copied later; bits, walks and checkpoints are as before. They stay there when the layer is moved; a copy
/// of the layer has memory of its own. `layer` is a MixtureLinear, an ExpertLinear, an AnyLinear or a ModelRouting.
/// Throws Error(shape) for an array of another size, before anything changes.
///
///     std::vector<float> parameters(parameter_layout(layer).size), gradients(parameters.size());
///     bind_parameters(layer, std::span(parameters));
///     bind_gradients(layer, layer_gradients, std::span(gradients));
///
/// A part that is replaced by one of another size, ranks pruned or experts added, has memory of its own again:
/// check_bound() finds it.  O(parameters)
template <class Layer>
void bind_parameters(Layer& layer, std::span<typename Layer::Scalar> parameters,
                     BoundNumbers numbers = BoundNumbers::of_layer) {
  const ParameterLayout layout = detail::checked_layout("bind_parameters: numbers of the array", layer, parameters);
  layer.move_tensors(detail::places_in(layout, parameters, numbers));
}

/// The same of gradients that layer.gradients() has made, by the layout of the parameters. Those of frozen tensors are
/// empty, and their places stay untouched.
template <class Layer>
void bind_gradients(Layer& layer, typename Layer::Gradients& gradients, std::span<typename Layer::Scalar> array,
                    BoundNumbers numbers = BoundNumbers::of_layer) {
  const ParameterLayout layout = detail::checked_layout("bind_gradients: numbers of the array", layer, array);
  auto place = detail::places_in(layout, array, numbers);
  detail::move_tensors<typename Layer::Gradients>(place, gradients);
}
/// Of the gradients inside an AnyLinear; to be called again after set_trainable().
template <class T>
void bind_gradients(AnyLinear<T>& layer, std::span<std::type_identity_t<T>> array,
                    BoundNumbers numbers = BoundNumbers::of_layer) {
  const ParameterLayout layout = detail::checked_layout("bind_gradients: numbers of the array", layer, array);
  layer.move_gradients(detail::places_in(layout, array, numbers));
}

/// Gives the parameters memory of the layer's own again, with the same numbers: before the host frees its array.
template <class Layer>
void release_parameters(Layer& layer) {
  using T = typename Layer::Scalar;
  layer.move_tensors([](std::string_view, View<T>) { return View<T>(); });
}

/// Throws Error(order), naming the tensor, unless all parameters of `layer` are still where bind_parameters() put them:
/// for a host whose framework may move its array, or after surgery. Some nanoseconds a tensor.
template <class Layer>
void check_bound(Layer& layer, std::span<typename Layer::Scalar> parameters) {
  Index first = 0;
  layer.for_each_tensor([&](std::string_view name, auto tensor, auto...) {
    const Index size = tensor.rows() * tensor.cols();
    require(size <= Index(parameters.size()) - first && tensor.data() == parameters.data() + first, ErrorCode::order,
            "check_bound: expected ", name,
            " where it was bound, found it elsewhere: the array has moved, or the layer has changed");
    first += size;
  });
  require_equal(ErrorCode::order, "check_bound: numbers of the array", first, Index(parameters.size()));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
