// SPDX-License-Identifier: MIT
// GgufType: the element types of a GGUF file.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Element type of a stored tensor, by ggml's number. Source: ggml, ggml.h; gguf-py 0.19.0, constants.py.
enum class GgufType : std::uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q8_0 = 8,
  f64 = 28,
  bf16 = 30,
};

namespace detail {

/// A type that files have, whether or not it is decoded: elements of a block of `elements` take `bytes`.
struct GgufTypeRow {
  std::uint32_t number;
  std::string_view name;
  int elements, bytes;
};

inline constexpr std::array<GgufTypeRow, 34> gguf_type_rows{{
    {0, "F32", 1, 4},         {1, "F16", 1, 2},         {2, "Q4_0", 32, 18},      {3, "Q4_1", 32, 20},
    {6, "Q5_0", 32, 22},      {7, "Q5_1", 32, 24},      {8, "Q8_0", 32, 34},      {9, "Q8_1", 32, 40},
    {10, "Q2_K", 256, 84},    {11, "Q3_K", 256, 110},   {12, "Q4_K", 256, 144},   {13, "Q5_K", 256, 176},
    {14, "Q6_K", 256, 210},   {15, "Q8_K", 256, 292},   {16, "IQ2_XXS", 256, 66}, {17, "IQ2_XS", 256, 74},
    {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50},   {20, "IQ4_NL", 32, 18},   {21, "IQ3_S", 256, 110},
    {22, "IQ2_S", 256, 82},   {23, "IQ4_XS", 256, 136}, {24, "I8", 1, 1},         {25, "I16", 1, 2},
    {26, "I32", 1, 4},        {27, "I64", 1, 8},        {28, "F64", 1, 8},        {29, "IQ1_M", 256, 56},
    {30, "BF16", 1, 2},       {34, "TQ1_0", 256, 54},   {35, "TQ2_0", 256, 66},   {39, "MXFP4", 32, 17},
    {40, "NVFP4", 64, 36},    {41, "Q1_0", 128, 18},
}};

constexpr std::optional<GgufTypeRow> gguf_type_row(std::uint32_t number) {
  for (const GgufTypeRow& row : gguf_type_rows)
    if (row.number == number) return row;
  return std::nullopt;
}

}  // namespace detail

/// ggml's own name; for a type that no version of this table knows, its number.
inline std::string name_of(GgufType type) {
  const auto row = detail::gguf_type_row(std::uint32_t(type));
  return row ? std::string(row->name) : "type " + std::to_string(std::uint32_t(type));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
