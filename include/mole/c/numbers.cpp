// SPDX-License-Identifier: MIT
// The numbers that layers train: tensors, arrays of the caller's, copies.
#include "mole/c/handles.hpp"
#include "mole/layer/bind_parameters.hpp"

#include <algorithm>

using namespace mole;
using namespace mole::c;

namespace {

/// The numbers of `layer`. Throws unless there are as many.
std::span<float> array_of(const mole_layer& layer, float* numbers, Index size, const char* function) {
  require_equal(ErrorCode::shape, std::string(function) + ": numbers of the array", layer.layout.size, size);
  return {numbers, std::size_t(size)};
}

mole_tensor described(const ParameterLayout::Tensor& of, View<float> parameter, View<float> gradient) {
  return {of.name.c_str(), of.rows, of.cols, of.first, parameter.data(), gradient.data()};
}

/// f(tensor) for each.
template <class F>
void for_each_described(const mole_layer& layer, F f) {
  std::size_t next = 0;
  layer.for_each_tensor([&](std::string_view, View<float> parameter, View<float> gradient) {
    f(described(layer.layout.tensors[next++], parameter, gradient));
  });
}

std::size_t size_of(const mole_tensor& tensor) {
  return std::size_t(tensor.rows * tensor.cols);
}

}  // namespace

mole_index mole_layer_tensor_count(const mole_layer* layer) {
  return guarded_or<mole_index>(-1, [&] {
    require_pointer(layer, "mole_layer_tensor_count", "layer");
    return Index(layer->layout.tensors.size());
  });
}

mole_index mole_layer_size(const mole_layer* layer) {
  return guarded_or<mole_index>(-1, [&] {
    require_pointer(layer, "mole_layer_size", "layer");
    return layer->layout.size;
  });
}

mole_status mole_layer_tensor(mole_layer* layer, mole_index number, mole_tensor* tensor) {
  return guarded([&] {
    require_pointer(layer, "mole_layer_tensor", "layer");
    require_pointer(tensor, "mole_layer_tensor", "tensor");
    const Index count = Index(layer->layout.tensors.size());
    require(number >= 0 && number < count, ErrorCode::option, "mole_layer_tensor: expected a number below ", count,
            ", found ", number);
    Index next = 0;
    for_each_described(*layer, [&](const mole_tensor& found) {
      if (next++ == number) *tensor = found;
    });
  });
}

mole_status mole_layer_walk(mole_layer* layer, mole_visitor visit, void* user) {
  return guarded([&] {
    require_pointer(layer, "mole_layer_walk", "layer");
    if (visit == nullptr) require_pointer(nullptr, "mole_layer_walk", "visit");
    for_each_described(*layer, [&](const mole_tensor& tensor) { visit(user, &tensor); });
  });
}

namespace {

BoundNumbers checked(int whose, const char* function) {
  require(whose == MOLE_OF_LAYER || whose == MOLE_OF_ARRAY, ErrorCode::option, function,
          ": expected MOLE_OF_LAYER or MOLE_OF_ARRAY, found ", whose);
  return whose == MOLE_OF_LAYER ? BoundNumbers::of_layer : BoundNumbers::of_memory;
}

}  // namespace

mole_status mole_layer_bind_parameters(mole_layer* layer, float* parameters, mole_index size, int whose) {
  return guarded([&] {
    constexpr const char* function = "mole_layer_bind_parameters";
    require_pointer(layer, function, "layer");
    require_pointer(parameters, function, "parameters");
    bind_parameters(*layer, array_of(*layer, parameters, size, function), checked(whose, function));
    layer->parameters_bound = true;
  });
}

mole_status mole_layer_bind_gradients(mole_layer* layer, float* gradients, mole_index size, int whose) {
  return guarded([&] {
    constexpr const char* function = "mole_layer_bind_gradients";
    require_pointer(layer, function, "layer");
    require_pointer(gradients, function, "gradients");
    const std::span<float> array = array_of(*layer, gradients, size, function);
    layer->move_gradients(mole::detail::places_in(layer->layout, array, checked(whose, function)));
    layer->gradients_bound = true;
  });
}

mole_status mole_layer_release(mole_layer* layer) {
  return guarded([&] {
    require_pointer(layer, "mole_layer_release", "layer");
    if (std::exchange(layer->parameters_bound, false)) release_parameters(*layer);
    if (std::exchange(layer->gradients_bound, false)) layer->move_gradients(memory_of_its_own);
  });
}

mole_status mole_layer_get_parameters(const mole_layer* layer, float* parameters, mole_index size) {
  return guarded([&] {
    constexpr const char* function = "mole_layer_get_parameters";
    require_pointer(layer, function, "layer");
    require_pointer(parameters, function, "parameters");
    const std::span<float> to = array_of(*layer, parameters, size, function);
    for_each_described(*layer,
                       [&](const mole_tensor& t) { std::copy_n(t.parameter, size_of(t), &to[std::size_t(t.first)]); });
  });
}

mole_status mole_layer_set_parameters(mole_layer* layer, const float* parameters, mole_index size) {
  return guarded([&] {
    constexpr const char* function = "mole_layer_set_parameters";
    require_pointer(layer, function, "layer");
    require_pointer(parameters, function, "parameters");
    require_equal(ErrorCode::shape, "mole_layer_set_parameters: numbers of the array", layer->layout.size, size);
    for_each_described(*layer,
                       [&](const mole_tensor& t) { std::copy_n(parameters + t.first, size_of(t), t.parameter); });
  });
}

mole_status mole_layer_get_gradients(const mole_layer* layer, float* gradients, mole_index size) {
  return guarded([&] {
    constexpr const char* function = "mole_layer_get_gradients";
    require_pointer(layer, function, "layer");
    require_pointer(gradients, function, "gradients");
    const std::span<float> to = array_of(*layer, gradients, size, function);
    for_each_described(*layer, [&](const mole_tensor& t) {
      float* const first = to.data() + t.first;
      if (t.gradient == nullptr)
        std::fill_n(first, size_of(t), 0.0f);
      else
        std::copy_n(t.gradient, size_of(t), first);
    });
  });
}

mole_status mole_layer_zero_gradients(mole_layer* layer) {
  return guarded([&] {
    require_pointer(layer, "mole_layer_zero_gradients", "layer");
    layer->zero_gradients();
  });
}
