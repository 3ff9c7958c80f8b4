// SPDX-License-Identifier: MIT
// save_state(), load_state(), base_setter(): of a layer, what libtorch does not know to be parts of a module.
#pragma once

#include "mole/base/packed_base.hpp"
#include "mole/core/bias_view.hpp"
#include "mole/core/error.hpp"
#include "mole/core/state.hpp"
#include "mole/interop/torch/torch_view.hpp"
#include "mole/layer/any_linear.hpp"

#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>
#include <torch/types.h>

#include <algorithm>
#include <concepts>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole::detail {

/// "state_gating_select_bias"
inline std::string archive_key_of(std::string_view state) {
  std::string key = "state_" + std::string(state);
  std::ranges::replace(key, '.', '_');
  return key;
}

template <class T>
void save_state(AnyLinear<T>& layer, torch::serialize::OutputArchive& archive) {
  layer.for_each_state([&]<class U>(std::string_view name, std::span<U> numbers) {
    const torch::Tensor tensor = torch::from_blob(numbers.data(), {std::int64_t(numbers.size())}, torch_type<U>);
    archive.write(archive_key_of(name), tensor.clone(), true);
  });
}

/// Throws Error(file) for state of other sizes.
template <class T>
void load_state(AnyLinear<T>& layer, torch::serialize::InputArchive& archive) {
  layer.for_each_state([&]<class U>(std::string_view name, std::span<U> numbers) {
    torch::Tensor tensor;
    archive.read(archive_key_of(name), tensor, true);
    require(
        tensor.scalar_type() == torch_type<U> && tensor.dim() == 1 && Index(tensor.numel()) == Index(numbers.size()),
        ErrorCode::file, "TorchLinear: load: expected ", numbers.size(), " numbers of ", name, ", found ",
        text_of(tensor.sizes()));
    std::copy_n(tensor.contiguous().data_ptr<U>(), numbers.size(), numbers.begin());
  });
}

/// A function that gives an AnyLinear with a Layer inside a base of another weight, with the options of the one that it
/// has; none for bases that are not made of a weight [O x I].
template <class Layer>
std::function<void(AnyLinear<typename Layer::Scalar>&, View<const typename Layer::Scalar>,
                   BiasView<typename Layer::Scalar>)>
base_setter() {
  using T = typename Layer::Scalar;
  using Base = std::remove_cvref_t<decltype(std::declval<const Layer&>().base())>;
  const auto setter = [](auto make) {
    return [make](AnyLinear<T>& any, View<const T> weight, BiasView<T> bias) {
      any.set_base(make(std::as_const(*any.template target<Layer>()).base(), weight, bias));
    };
  };
  if constexpr (requires(const Base& base) { base.code().options(); })
    return setter([](const Base& base, View<const T> weight, BiasView<T> bias) {
      using Code = std::remove_cvref_t<decltype(base.code())>;
      return Base(Code(weight, base.code().options()), bias);
    });
  else if constexpr (std::same_as<Base, PackedBase<T>>)
    return setter([](const Base& base, View<const T> weight, BiasView<T> bias) {
      return Base(weight, bias, {.backward = bool(base.weights().transposed_panels)});
    });
  else if constexpr (std::constructible_from<Base, View<const T>, BiasView<T>>)
    return setter([](const Base&, View<const T> weight, BiasView<T> bias) { return Base(weight, bias); });
  else
    return {};
}

}  // namespace mole::detail

#include "mole/core/macros_on.hpp"
