// SPDX-License-Identifier: MIT
// read_safetensors_weight(): a matrix of a checkpoint as the weight of a base, without a copy.
#pragma once

#include "mole/base/bf16_base.hpp"
#include "mole/base/half_base.hpp"
#include "mole/io/safetensors_shards.hpp"

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// F32; F16; BF16. Make a base of it: DenseBase of the first, CodedBase of the others.
using SafetensorsWeight = std::variant<View<const float>, ReducedFloatWeight<Half>, ReducedFloatWeight<Bfloat16>>;

namespace detail {
/// Borrowed where the address allows it.
template <class Format>
ReducedFloatWeight<Format> stored_half_weight(std::span<const std::byte> bytes, Index rows, Index cols) {
  const void* const data = bytes.data();
  if (reinterpret_cast<std::uintptr_t>(data) % alignof(std::uint16_t) == 0)
    return ReducedFloatWeight<Format>(View<const std::uint16_t>(static_cast<const std::uint16_t*>(data), rows, cols));
  std::vector<std::uint16_t> codes(bytes.size() / sizeof(std::uint16_t));
  std::memcpy(codes.data(), data, bytes.size());
  return ReducedFloatWeight<Format>(rows, cols, std::move(codes));
}
}  // namespace detail

/// The matrix `name`, such as "model.layers.0.self_attn.q_proj.weight" [O x I], with the numbers of the file. It lives
/// as long as `tensors`: it is borrowed, but for F16 and BF16 at an odd address, which are copied.
///
///     std::visit([&](auto weight) {
///       if constexpr (std::same_as<decltype(weight), View<const float>>) use(DenseBase{weight});
///       else use(CodedBase{std::move(weight)});
///     }, read_safetensors_weight(shards, name));
///
/// Throws Error(file) for a tensor that is no matrix, F32 at an address that is no multiple of 4, and all other dtypes,
/// by their name: `matrix` copies F64.  O(1), or O(size) for a copy.
inline SafetensorsWeight read_safetensors_weight(const SafetensorsShards& tensors, std::string_view name) {
  const SafetensorsEntry& entry = tensors.at(name);
  const std::string& source = tensors.reader_of(name).source();
  const std::string of_name = " for '" + entry.name + "'";
  if (entry.shape.size() != 2)
    throw file_error(source, "a matrix" + of_name, std::to_string(entry.shape.size()) + " dimensions");
  const Index rows = entry.shape[0], cols = entry.shape[1];
  switch (entry.dtype) {
    case Dtype::f32:
      return tensors.view<float>(name);
    case Dtype::f16:
      return detail::stored_half_weight<Half>(entry.bytes, rows, cols);
    case Dtype::bf16:
      return detail::stored_half_weight<Bfloat16>(entry.bytes, rows, cols);
    default:
      throw file_error(source, "F32, F16 or BF16" + of_name, std::string(name_of(entry.dtype)));
  }
}
SafetensorsWeight read_safetensors_weight(SafetensorsShards&&, std::string_view) = delete;  // its files would be gone

}  // namespace mole

#include "mole/core/macros_on.hpp"
