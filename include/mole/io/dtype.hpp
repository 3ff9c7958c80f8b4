// SPDX-License-Identifier: MIT
// Dtype: the element types of a safetensors file.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Element type of a stored tensor; `name_of` gives the file's own name for it.
/// Source: huggingface/safetensors, safetensors/src/tensor.rs.
enum class Dtype {
  f4,
  f6_e2m3,
  f6_e3m2,
  f8_e4m3,
  f8_e4m3fnuz,
  f8_e5m2,
  f8_e5m2fnuz,
  f8_e8m0,
  boolean,
  u8,
  i8,
  u16,
  i16,
  f16,
  bf16,
  u32,
  i32,
  f32,
  u64,
  i64,
  f64,
  c64,
};

namespace detail {

struct DtypeRow {
  Dtype dtype;
  std::string_view name;
  int bits;
};

inline constexpr std::array<DtypeRow, 22> dtype_rows{{
    {Dtype::f4, "F4", 4},
    {Dtype::f6_e2m3, "F6_E2M3", 6},
    {Dtype::f6_e3m2, "F6_E3M2", 6},
    {Dtype::f8_e4m3, "F8_E4M3", 8},
    {Dtype::f8_e4m3fnuz, "F8_E4M3FNUZ", 8},
    {Dtype::f8_e5m2, "F8_E5M2", 8},
    {Dtype::f8_e5m2fnuz, "F8_E5M2FNUZ", 8},
    {Dtype::f8_e8m0, "F8_E8M0", 8},
    {Dtype::boolean, "BOOL", 8},
    {Dtype::u8, "U8", 8},
    {Dtype::i8, "I8", 8},
    {Dtype::u16, "U16", 16},
    {Dtype::i16, "I16", 16},
    {Dtype::f16, "F16", 16},
    {Dtype::bf16, "BF16", 16},
    {Dtype::u32, "U32", 32},
    {Dtype::i32, "I32", 32},
    {Dtype::f32, "F32", 32},
    {Dtype::u64, "U64", 64},
    {Dtype::i64, "I64", 64},
    {Dtype::f64, "F64", 64},
    {Dtype::c64, "C64", 64},
}};

static_assert(
    [] {
      for (std::size_t i = 0; i < dtype_rows.size(); ++i)
        if (dtype_rows[i].dtype != Dtype(i)) return false;
      return true;
    }(),
    "dtype_rows: expected one row a Dtype, in its order");

}  // namespace detail

constexpr std::string_view name_of(Dtype dtype) {
  return detail::dtype_rows[std::size_t(dtype)].name;
}

/// Bits of one element; below 8 for types that share a byte.
constexpr int bits_of(Dtype dtype) {
  return detail::dtype_rows[std::size_t(dtype)].bits;
}

/// The dtype of that name, if there is one.
constexpr std::optional<Dtype> dtype_named(std::string_view name) {
  for (const detail::DtypeRow& row : detail::dtype_rows)
    if (row.name == name) return row.dtype;
  return std::nullopt;
}

/// The dtype whose elements are `T` in memory.
template <class T>
constexpr Dtype dtype_of() {
  if constexpr (std::is_same_v<T, float>)
    return Dtype::f32;
  else if constexpr (std::is_same_v<T, double>)
    return Dtype::f64;
  else if constexpr (std::is_same_v<T, std::int64_t>)
    return Dtype::i64;
  else if constexpr (std::is_same_v<T, std::int32_t>)
    return Dtype::i32;
  else if constexpr (std::is_same_v<T, std::int8_t>)
    return Dtype::i8;
  else {
    static_assert(std::is_same_v<T, std::uint8_t>,
                  "dtype_of: expected float, double or a signed 64, 32 or 8-bit or "
                  "unsigned 8-bit integer");
    return Dtype::u8;
  }
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
