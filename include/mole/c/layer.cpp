// SPDX-License-Identifier: MIT
// Errors, presets, layers and their numbers.
#include "mole/c/handles.hpp"
#include "mole/core/transposed.hpp"
#include "mole/core/version.hpp"
#include "mole/layer/bind_parameters.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

namespace mole::c {
namespace {

/// Not a string: keeping the text of std::bad_alloc must not allocate.
thread_local std::array<char, 1024> last_error{};

void keep_error(const char* text) noexcept {
  std::strncpy(last_error.data(), text, last_error.size() - 1);
  last_error.back() = '\0';
}

}  // namespace

void require_pointer(const void* pointer, const char* function, const char* argument) {
  if (pointer == nullptr)
    throw NullPointer(std::string(function) + ": expected a pointer for '" + argument + "', found NULL");
}

mole_status status_of_current_exception() noexcept {
  try {
    throw;
  } catch (const Error& error) {
    keep_error(error.what());
    return mole_status(error.code());
  } catch (const NullPointer& error) {
    keep_error(error.what());
    return MOLE_NULL_POINTER;
  } catch (const std::bad_alloc&) {
    keep_error("out of memory");
    return MOLE_OUT_OF_MEMORY;
  } catch (const std::length_error& error) {  // more than a container may hold
    keep_error(error.what());
    return MOLE_OUT_OF_MEMORY;
  } catch (const std::exception& error) {
    keep_error(error.what());
    return MOLE_UNEXPECTED;
  } catch (...) {
    keep_error("an exception that is no std::exception");
    return MOLE_UNEXPECTED;
  }
}

std::span<float> array_of(const mole_layer& layer, float* numbers, Index size, const char* function) {
  require_equal(ErrorCode::shape, std::string(function) + ": numbers of the array", layer.layout.size, size);
  return {numbers, std::size_t(size)};
}

namespace {

/// As it lies in memory: [O x I] or [I x O].
View<const float> memory_of(const mole_weight& weight, const char* function) {
  require(weight.layout == MOLE_OUT_IN || weight.layout == MOLE_IN_OUT, ErrorCode::option, function,
          ": expected a layout of MOLE_OUT_IN or MOLE_IN_OUT, found ", weight.layout);
  require(weight.out >= 1 && weight.in >= 1, ErrorCode::shape, function,
          ": expected a weight of at least 1 output and 1 input, found ", weight.out, " and ", weight.in);
  const bool out_in = weight.layout == MOLE_OUT_IN;
  const Index rows = out_in ? weight.out : weight.in, cols = out_in ? weight.in : weight.out;
  const Index stride = weight.stride == 0 ? cols : weight.stride;
  require(stride >= cols, ErrorCode::shape, function, ": expected a stride of 0 or at least ", cols, ", found ",
          weight.stride);
  checked_product(function, checked_product(function, rows, stride), Index(sizeof(float)));
  return {weight.data, rows, cols, stride};
}

Base base_of(const mole_weight& weight, bool has_weight, const char* function) {
  const View<const float> memory = memory_of(weight, function);
  if (!has_weight) return Base(DenseBase(View<const float>(nullptr, weight.out, weight.in)));
  require_pointer(weight.data, function, "weight->data");
  const std::span<const float> bias(weight.bias, weight.bias == nullptr ? 0 : std::size_t(weight.out));
  if (weight.layout == MOLE_IN_OUT) {
    require(weight.pack != 0, ErrorCode::option, function,
            ": expected pack = 1 for a weight of layout MOLE_IN_OUT, as only [O x I] can be borrowed, found 0");
    return Base(PackedBase<float>(Transposed<float>(memory), bias));
  }
  if (weight.pack != 0) return Base(PackedBase<float>(memory, bias));
  return Base(DenseBase(memory, bias));
}

/// [O x I] in memory of its own.
std::shared_ptr<const Matrix<float>> copy_of(const mole_weight& weight, const char* function) {
  const View<const float> memory = memory_of(weight, function);
  auto copy = std::make_shared<Matrix<float>>(weight.out, weight.in);
  for (Index o = 0; o < weight.out; ++o)
    for (Index i = 0; i < weight.in; ++i) (*copy)(o, i) = weight.layout == MOLE_OUT_IN ? memory(o, i) : memory(i, o);
  return copy;
}

/// For tensors that no array is to hold any longer.
View<float> memory_of_its_own(std::string_view, View<float>) {
  return {};
}

std::unique_ptr<mole_layer> made_layer(const char* name, const char* options, const mole_weight& weight,
                                       const mole_layer* owner) {
  constexpr const char* function = "mole_layer_create";
  const Preset& preset = preset_named(name);
  OptionReader reader(preset.name, options);
  const LayerThreads threads;
  std::shared_ptr<const Matrix<float>> copy;
  bool holds_weight = false;
  Site site{.base = base_of(weight, preset.has_weight, function), .execution = Execution(threads), .weight = [&] {
              holds_weight = true;
              if (weight.pack == 0) return memory_of(weight, function);
              copy = copy_of(weight, function);
              return copy->view();
            }};
  if (owner != nullptr) {
    require(owner->shared != nullptr, ErrorCode::option, preset.name,
            ": expected to share with a layer that has a pool, found one of ", owner->preset);
    site.shared = owner->shared;
  }
  std::string text;
  AnyLinear<float> any = preset.make(reader, site, text);
  require(owner == nullptr || site.attach, ErrorCode::option, preset.name,
          ": expected a preset whose layers share a pool, found one whose layers share nothing");
  auto layer = std::make_unique<mole_layer>(std::move(any), threads);
  if (site.attach) {
    layer->shared = std::move(site.shared), layer->owns_shared = owner == nullptr;
    layer->attach = std::move(site.attach);
    layer->attach(layer->any);
  }
  layer->layout = parameter_layout(*layer);
  layer->preset = preset.name, layer->options = std::move(text);
  layer->weight = std::move(copy), layer->holds_weight = holds_weight;
  return layer;
}

}  // namespace
}  // namespace mole::c

using namespace mole;
using namespace mole::c;

const char* mole_status_text(int status) {
  switch (status) {
    case MOLE_OK:
      return "ok";
    case MOLE_SHAPE:
      return "shape";
    case MOLE_OPTION:
      return "option";
    case MOLE_FILE:
      return "file";
    case MOLE_CAPACITY:
      return "capacity";
    case MOLE_NOT_MERGEABLE:
      return "not mergeable";
    case MOLE_NOT_TRAINABLE:
      return "not trainable";
    case MOLE_ORDER:
      return "order of calls";
    case MOLE_NULL_POINTER:
      return "null pointer";
    case MOLE_OUT_OF_MEMORY:
      return "out of memory";
    case MOLE_UNEXPECTED:
      return "unexpected";
  }
  return "unknown status";
}

const char* mole_last_error(void) {
  return last_error.data();
}

const char* mole_version(void) {
  static const std::string version = std::to_string(MOLE_VERSION_MAJOR) + "." + std::to_string(MOLE_VERSION_MINOR) +
                                     "." + std::to_string(MOLE_VERSION_PATCH);
  return version.c_str();
}

// ---- presets

mole_index mole_preset_count(void) {
  return guarded_or<mole_index>(-1, [] { return Index(all_presets().size()); });
}

const char* mole_preset_name(mole_index number) {
  return guarded_or<const char*>(nullptr, [&] {
    const auto presets = all_presets();
    require(number >= 0 && number < Index(presets.size()), ErrorCode::option,
            "mole_preset_name: expected a number from 0 to ", presets.size() - 1, ", found ", number);
    return presets[std::size_t(number)].name;
  });
}

const char* mole_preset_options(const char* preset) {
  return guarded_or<const char*>(nullptr, [&] {
    require_pointer(preset, "mole_preset_options", "preset");
    static const std::vector<std::string> defaults = [] {
      std::vector<std::string> texts;
      for (const Preset& each : all_presets()) texts.push_back(each.defaults());
      return texts;
    }();
    return defaults[std::size_t(&preset_named(preset) - all_presets().data())].c_str();
  });
}

// ---- layers

mole_status mole_layer_create(const char* preset, const char* options, const mole_weight* weight, mole_layer** layer) {
  return guarded([&] {
    require_pointer(layer, "mole_layer_create", "layer");
    *layer = nullptr;
    require_pointer(preset, "mole_layer_create", "preset");
    require_pointer(weight, "mole_layer_create", "weight");
    *layer = made_layer(preset, options, *weight, nullptr).release();
  });
}

mole_status mole_layer_create_sharing(const char* preset, const char* options, const mole_weight* weight,
                                      mole_layer* owner, mole_layer** layer) {
  return guarded([&] {
    constexpr const char* function = "mole_layer_create_sharing";
    require_pointer(layer, function, "layer");
    *layer = nullptr;
    require_pointer(preset, function, "preset");
    require_pointer(weight, function, "weight");
    require_pointer(owner, function, "owner");
    *layer = made_layer(preset, options, *weight, owner).release();
  });
}

mole_status mole_layer_clone(const mole_layer* layer, mole_layer** copy) {
  return guarded([&] {
    require_pointer(copy, "mole_layer_clone", "copy");
    *copy = nullptr;
    require_pointer(layer, "mole_layer_clone", "layer");
    require(layer->shared == nullptr, ErrorCode::option,
            "mole_layer_clone: expected a layer with numbers of its own, found one of ", layer->preset,
            ", which shares some: create another");
    auto made = std::make_unique<mole_layer>(layer->any.clone(), layer->threads);
    made->layout = layer->layout;
    made->preset = layer->preset, made->options = layer->options;
    made->weight = layer->weight, made->holds_weight = layer->holds_weight;
    *copy = made.release();
  });
}

void mole_layer_destroy(mole_layer* layer) {
  delete layer;
}

mole_index mole_layer_in(const mole_layer* layer) {
  return guarded_or<mole_index>(-1, [&] {
    require_pointer(layer, "mole_layer_in", "layer");
    return layer->any.in();
  });
}

mole_index mole_layer_out(const mole_layer* layer) {
  return guarded_or<mole_index>(-1, [&] {
    require_pointer(layer, "mole_layer_out", "layer");
    return layer->any.out();
  });
}

const char* mole_layer_preset(const mole_layer* layer) {
  return guarded_or<const char*>(nullptr, [&] {
    require_pointer(layer, "mole_layer_preset", "layer");
    return layer->preset.c_str();
  });
}

const char* mole_layer_options(const mole_layer* layer) {
  return guarded_or<const char*>(nullptr, [&] {
    require_pointer(layer, "mole_layer_options", "layer");
    return layer->options.c_str();
  });
}

mole_status mole_layer_set_weight(mole_layer* layer, const mole_weight* weight) {
  return guarded([&] {
    constexpr const char* function = "mole_layer_set_weight";
    require_pointer(layer, function, "layer");
    require_pointer(weight, function, "weight");
    require(!layer->holds_weight, ErrorCode::option, function, ": expected experts beside the weight, found those of ",
            layer->preset, ", which compute with it: create the layer again");
    layer->any.set_base(base_of(*weight, true, function));
  });
}

mole_status mole_layer_set_trainable(mole_layer* layer, int router, int experts) {
  return guarded([&] {
    require_pointer(layer, "mole_layer_set_trainable", "layer");
    layer->any.set_trainable({.router = router != 0, .experts = experts != 0});
    layer->gradients_bound = false;
    if (layer->owns_shared) {
      layer->shared->move_gradients(memory_of_its_own);
      layer->shared->zero_gradients();
    }
    if (layer->attach) layer->attach(layer->any);
  });
}

mole_status mole_layer_merge(const mole_layer* layer, float* weight) {
  return guarded([&] {
    require_pointer(layer, "mole_layer_merge", "layer");
    require_pointer(weight, "mole_layer_merge", "weight");
    layer->any.merge_into({weight, layer->any.out(), layer->any.in()});
  });
}

// ---- trained numbers

namespace {

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
