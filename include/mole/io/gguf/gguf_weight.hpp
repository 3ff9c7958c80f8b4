// SPDX-License-Identifier: MIT
// read_gguf_weight(): a matrix of a GGUF file as the weight of a base.
#pragma once

#include "mole/base/bf16_base.hpp"
#include "mole/base/half_base.hpp"
#include "mole/base/q4_base.hpp"
#include "mole/base/q8_base.hpp"
#include "mole/io/gguf/gguf_reader.hpp"
#include "mole/io/safetensors_weight.hpp"

#include <utility>
#include <variant>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// F32, F16, BF16 and Q8_0, borrowed from the file; Q4_0. Make a base of it: DenseBase of the first, CodedBase of
/// others.
using GgufWeight =
    std::variant<View<const float>, ReducedFloatWeight<Half>, ReducedFloatWeight<Bfloat16>, Q8Weight, Q4Weight>;

namespace detail {

/// A byte of the file has elements i and i + 16 of a block, the first in the lower half; a byte of a FourBitWeight two
/// neighbors, the first in the higher.
inline Q4Weight q4_0_weight(const GgufEntry& entry) {
  FourBitParts parts{.rows = entry.shape[0], .cols = entry.shape[1], .block = 32};
  for_each_gguf_block(entry, 18, [&](float scale, const std::uint8_t* block) {
    parts.absmax.push_back(8 * scale);
    for (int half : {0, 4})
      for (int i = 0; i < 16; i += 2)
        parts.weight.push_back(std::uint8_t((block[i] >> half & 15) << 4 | (block[i + 1] >> half & 15)));
  });
  return Q4Weight(std::move(parts));
}

}  // namespace detail

/// The matrix `name`, such as "blk.0.attn_q.weight" [O x I], with the numbers of the file exactly: codes are taken, not
/// rounded anew.
///
/// F32, F16, BF16 and Q8_0 are borrowed and live as long as the reader; Q4_0, whose nibbles have another order than
/// those of a FourBitWeight, is copied, O(bytes). llama.cpp's own models of the Llama family have the rows of q and k
/// in another order than PyTorch's (see gguf_lora.hpp). Throws Error(file) for a tensor that is no matrix, scales that
/// are not finite, and all other types, by their name.
inline GgufWeight read_gguf_weight(const GgufReader& reader, std::string_view name) {
  const GgufEntry& entry = reader.at(name);
  const std::string of_name = " for '" + entry.name + "'";
  if (entry.shape.size() != 2)
    throw file_error(reader.source(), "a matrix" + of_name, std::to_string(entry.shape.size()) + " dimensions");
  try {
    switch (entry.type) {
      case GgufType::f32: {
        const void* const data = entry.bytes.data();
        if (reinterpret_cast<std::uintptr_t>(data) % alignof(float) != 0)
          throw file_error(reader.source(), "an address that is a multiple of 4" + of_name, "another");
        return View<const float>(static_cast<const float*>(data), entry.shape[0], entry.shape[1]);
      }
      case GgufType::f16:
        return detail::stored_half_weight<Half>(entry.bytes, entry.shape[0], entry.shape[1]);
      case GgufType::bf16:
        return detail::stored_half_weight<Bfloat16>(entry.bytes, entry.shape[0], entry.shape[1]);
      case GgufType::q8_0:
        return Q8Weight(entry.shape[0], entry.shape[1], entry.bytes);
      case GgufType::q4_0:
        return detail::q4_0_weight(entry);
      case GgufType::f64:
        break;
    }
  } catch (const Error& error) {
    if (error.code() == ErrorCode::file) throw;
    throw Error(ErrorCode::file, reader.source() + ": '" + entry.name + "': " + error.what());
  }
  throw file_error(reader.source(), "F32, F16, BF16, Q8_0 or Q4_0" + of_name, name_of(entry.type));
}
GgufWeight read_gguf_weight(GgufReader&&, std::string_view) = delete;  // the file would be gone

}  // namespace mole

#include "mole/core/macros_on.hpp"
