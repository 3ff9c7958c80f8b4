// SPDX-License-Identifier: MIT
// check_tensor(): whether the numbers of a stored tensor are numbers, and how large they are.
#pragma once

#include "mole/core/reduced_floats.hpp"
#include "mole/io/gguf/gguf_entry.hpp"
#include "mole/io/safetensors_header.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Of finite numbers: the root of the sum of their squares, and the largest absolute value.
struct TensorCheck {
  bool numbers = false;  ///< the type is one of those that are decoded; else nothing was looked at
  std::uint64_t not_finite = 0;
  double norm = 0, largest = 0;
};

namespace detail {

/// Sums squares of what it is called with.
class TensorChecking {
 public:
  void operator()(double number) {
    if (!std::isfinite(number)) {
      ++check_.not_finite;
      return;
    }
    check_.largest = std::max(check_.largest, std::abs(number));
    squares_ += number * number;
  }
  TensorCheck result() const {
    TensorCheck result = check_;
    result.numbers = true;
    result.norm = std::sqrt(squares_);
    return result;
  }

 private:
  TensorCheck check_;
  double squares_ = 0;
};

template <class Stored, class Decode>
TensorCheck check_elements(std::span<const std::byte> bytes, Decode decode) {
  TensorChecking checking;
  for (std::size_t at = 0; at < bytes.size(); at += sizeof(Stored)) {
    Stored element;
    std::memcpy(&element, bytes.data() + at, sizeof element);
    checking(double(decode(element)));
  }
  return checking.result();
}

}  // namespace detail

/// Reads the tensor once, in place: F64, F32, F16 or BF16.  O(size), no memory.
inline TensorCheck check_tensor(const SafetensorsEntry& entry) {
  switch (entry.dtype) {
    case Dtype::f64:
      return detail::check_elements<double>(entry.bytes, std::identity{});
    case Dtype::f32:
      return detail::check_elements<float>(entry.bytes, std::identity{});
    case Dtype::f16:
      return detail::check_elements<std::uint16_t>(entry.bytes, from_float16);
    case Dtype::bf16:
      return detail::check_elements<std::uint16_t>(entry.bytes, from_bfloat16);
    default:
      return {};
  }
}

/// The same of every type that for_each_gguf_number() decodes.
inline TensorCheck check_tensor(const GgufEntry& entry) {
  switch (entry.type) {
    case GgufType::f32:
    case GgufType::f64:
    case GgufType::f16:
    case GgufType::bf16:
    case GgufType::q8_0:
    case GgufType::q4_0:
      break;
    default:
      return {};
  }
  detail::TensorChecking checking;
  detail::for_each_gguf_number(entry, "check_tensor", [&](auto number) { checking(double(number)); });
  return checking.result();
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
