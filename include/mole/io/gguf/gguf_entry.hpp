// SPDX-License-Identifier: MIT
// GgufEntry: one tensor of a GGUF file, and its numbers.
#pragma once

#include "mole/core/config.hpp"
#include "mole/core/reduced_floats.hpp"
#include "mole/io/file_error.hpp"
#include "mole/io/gguf/gguf_type.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// One tensor of a GGUF file; its bytes are borrowed from the file.
struct GgufEntry {
  std::string name;
  GgufType type;
  std::vector<Index> shape;  ///< as PyTorch has it, the last dimension lies together: the reverse of the file's
  std::span<const std::byte> bytes;
};

namespace detail {

/// Blocks of a scale in 16 bits and the codes of 32 elements, `size` bytes each: f(scale, codes).
template <class F>
void for_each_gguf_block(const GgufEntry& entry, std::size_t size, F f) {
  for (std::size_t at = 0; at < entry.bytes.size(); at += size) {
    std::uint16_t scale;
    std::memcpy(&scale, entry.bytes.data() + at, sizeof scale);
    f(from_float16(scale), reinterpret_cast<const std::uint8_t*>(entry.bytes.data()) + at + sizeof scale);
  }
}

/// f(number) for each element, in the order of the tensor. Throws Error(file) for a type that is not decoded.
template <class F>
void for_each_gguf_number(const GgufEntry& entry, const std::string& source, F f) {
  const auto each = [&]<class Stored>(Stored element, auto decode) {
    for (std::size_t at = 0; at < entry.bytes.size(); at += sizeof element) {
      std::memcpy(&element, entry.bytes.data() + at, sizeof element);
      f(decode(element));
    }
  };
  switch (entry.type) {
    case GgufType::f32:
      return each(float{}, std::identity{});
    case GgufType::f64:
      return each(double{}, std::identity{});
    case GgufType::f16:
      return each(std::uint16_t{}, from_float16);
    case GgufType::bf16:
      return each(std::uint16_t{}, from_bfloat16);
    case GgufType::q8_0:
      return for_each_gguf_block(entry, 34, [&](float scale, const std::uint8_t* codes) {
        for (int i = 0; i < 32; ++i) f(scale * float(std::int8_t(codes[i])));
      });
    case GgufType::q4_0:  // the lower nibbles are the first half of a block
      return for_each_gguf_block(entry, 18, [&](float scale, const std::uint8_t* codes) {
        for (int i = 0; i < 32; ++i) f(scale * float((codes[i % 16] >> (i < 16 ? 0 : 4) & 15) - 8));
      });
  }
  throw file_error(source, "F32, F16, BF16, F64, Q8_0 or Q4_0 for '" + entry.name + "'", name_of(entry.type));
}

}  // namespace detail

}  // namespace mole

#include "mole/core/macros_on.hpp"
