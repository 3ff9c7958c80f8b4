// SPDX-License-Identifier: MIT
// encode_floats(): numbers as the bytes of a stored tensor.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/reduced_floats.hpp"
#include "mole/core/view.hpp"
#include "mole/io/dtype.hpp"

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstring>
#include <type_traits>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The bytes of `numbers`, row by row, as F64, F32, F16 or BF16; the last two are rounded from float, to the nearest
/// with ties to even. Throws Error(option) for another dtype.  O(size)
template <class T>
std::vector<std::byte> encode_floats(View<T> numbers, Dtype dtype) {
  static_assert(std::endian::native == std::endian::little, "encode_floats: expected a little-endian machine");
  static_assert(std::floating_point<std::remove_const_t<T>>, "encode_floats: expected float or double");
  require(dtype == Dtype::f64 || dtype == Dtype::f32 || dtype == Dtype::f16 || dtype == Dtype::bf16, ErrorCode::option,
          "encode_floats: expected F64, F32, F16 or BF16, found ", name_of(dtype));
  std::vector<std::byte> bytes(std::size_t(numbers.size()) * std::size_t(bits_of(dtype)) / 8);
  if (bytes.empty()) return bytes;  // of however many rows
  std::byte* to = bytes.data();
  const auto put = [&](auto stored) {
    std::memcpy(to, &stored, sizeof stored);
    to += sizeof stored;
  };
  for (Index r = 0; r < numbers.rows(); ++r)
    for (const auto number : numbers.row(r)) {
      if (dtype == Dtype::f64) put(double(number));
      if (dtype == Dtype::f32) put(float(number));
      if (dtype == Dtype::f16) put(to_float16(float(number)));
      if (dtype == Dtype::bf16) put(to_bfloat16(float(number)));
    }
  return bytes;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
