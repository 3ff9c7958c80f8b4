// SPDX-License-Identifier: MIT
// replace_linear(): puts a layer where a model of libtorch has a Linear.
#pragma once

#include "mole/core/error.hpp"
#include "mole/interop/torch/torch_linear.hpp"

#include <torch/nn/module.h>
#include <torch/nn/modules/container/any.h>
#include <torch/nn/modules/container/moduledict.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>

#include <concepts>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

namespace detail {
inline std::string names_of_children(const torch::nn::Module& module) {
  std::string names;
  for (const auto& child : module.named_children()) names += (names.empty() ? "" : ", ") + child.key();
  return names.empty() ? "none" : names;
}

template <class M>
concept ModuleHolder = requires {
  typename std::remove_cvref_t<M>::ContainedType;
};

/// A Linear within a model.
struct FoundLinear {
  torch::nn::Module* parent;
  std::string name;
  std::shared_ptr<torch::nn::LinearImpl> linear;
};

/// Throws Error(option) with what stands there instead.
inline FoundLinear find_linear(torch::nn::Module& model, std::string_view path) {
  torch::nn::Module* parent = &model;
  std::string rest(path), at;
  for (;;) {
    const std::size_t dot = rest.find('.');
    const std::string name = rest.substr(0, dot);
    const auto children = parent->named_children();
    const auto* const child = children.find(name);
    require(child != nullptr, ErrorCode::option, "replace_linear: expected a child '", name, "' of ",
            at.empty() ? "the model" : at.c_str(), ", found ", names_of_children(*parent));
    at += (at.empty() ? "" : ".") + name;
    if (dot == std::string::npos) {
      auto linear = std::dynamic_pointer_cast<torch::nn::LinearImpl>(*child);
      require(linear != nullptr, ErrorCode::option, "replace_linear: expected a torch::nn::Linear at ", at, ", found ",
              (*child)->name());
      return {parent, name, std::move(linear)};
    }
    parent = child->get();
    rest.erase(0, dot + 1);
  }
}

/// Calls f with what a container of libtorch keeps of the child beside its name: an AnyModule, or a pointer.
void with_entry_of_container(torch::nn::Module& parent, const torch::nn::Module& child, auto f) {
  if (auto* const sequential = parent.as<torch::nn::Sequential>()) {
    for (torch::nn::AnyModule& entry : *sequential)
      if (entry.ptr().get() == &child) return f(entry);
  } else if (auto* const list = parent.as<torch::nn::ModuleList>()) {
    for (std::shared_ptr<torch::nn::Module>& entry : *list)
      if (entry.get() == &child) return f(entry);
  } else if (auto* const dict = parent.as<torch::nn::ModuleDict>()) {
    for (auto& entry : *dict)
      if (entry.value().get() == &child) return f(entry.value());
  }
}
}  // namespace detail

/// Puts `layer` where the Linear of the name `path`, such as "blocks.0.mlp.up", is in `model`.
///
/// Its parent finds it by name: a Sequential, a ModuleList, a ModuleDict, or a module that asks named_children() in its
/// forward. A module that has the Linear as a member would go on calling it; since that cannot be changed from here, a
/// Linear that anybody but its parent refers to is refused: make such a member a torch::nn::AnyModule, assign to it,
/// and give that its name by replace_module().
///
/// Throws Error(option) with what was found where there is no such child, no Linear, or one with other owners,
/// Error(shape) for a layer of other sizes; the model stays as it was.
template <class T>
void replace_linear(torch::nn::Module& model, std::string_view path, TorchLinear<T> layer) {
  const detail::FoundLinear found = detail::find_linear(model, path);
  torch::nn::LinearImpl& linear = *found.linear;
  const Index in = layer->layer().in(), out = layer->layer().out();
  require(in == linear.options.in_features() && out == linear.options.out_features(), ErrorCode::shape,
          "replace_linear: expected a layer of ", linear.options.in_features(), " inputs and ",
          linear.options.out_features(), " outputs for ", path, ", found ", in, " and ", out);
  long owners = 2;  // here, and the names of the parent
  detail::with_entry_of_container(*found.parent, linear, [&](auto&) { ++owners; });
  require(found.linear.use_count() == owners, ErrorCode::option, "replace_linear: expected that nobody but its parent ",
          "refers to ", path, ", found ", found.linear.use_count() - owners,
          " others: a member of a module, which would go on calling it, or a variable");
  layer->train(linear.is_training());
  detail::with_entry_of_container(*found.parent, linear, [&](auto& entry) {
    if constexpr (std::same_as<std::remove_reference_t<decltype(entry)>, torch::nn::AnyModule>)
      entry = torch::nn::AnyModule(layer.ptr());
    else
      entry = layer.ptr();
  });
  found.parent->replace_module(found.name, layer.ptr());
}

/// The same of the layer that make(weight, bias) returns for the weight and the bias of the Linear, which it may
/// borrow: they are frozen, stay where they are, and keep their names, "weight" and "bias". What was put there.
///     mole::replace_linear(*model, "mlp.up", [&](auto weight, auto bias) {
///       return mole::mola({.experts = 8, .rank = 16, .k = 2}, mole::DenseBase{weight, bias}, rng);
///     });
template <class T = float, class Make>
requires(!detail::ModuleHolder<Make>) TorchLinear<T> replace_linear(torch::nn::Module& model, std::string_view path,
                                                                    Make&& make) {
  torch::Tensor weight, bias;
  {
    const detail::FoundLinear found = detail::find_linear(model, path);
    weight = found.linear->weight, bias = found.linear->bias;
  }
  TorchLinear<T> layer(make(torch_view<const T>(weight), torch_bias<T>(bias)), weight, bias);
  replace_linear(model, path, layer);
  return layer;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
