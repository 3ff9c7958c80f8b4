// SPDX-License-Identifier: MIT
// vector_loop(): functions of numbers, as many at a time as the processor takes.
#pragma once

#include <xsimd/xsimd.hpp>

#include <cstddef>
#include <span>

namespace encoder {

/// result[i] = f(numbers[i]...), f taking batches of xsimd and single numbers. All spans have the same size.
template <class T, class F, class... Numbers>
void vector_loop(std::span<T> result, F f, std::span<const Numbers>... numbers) {
  using Batch = xsimd::batch<T>;
  std::size_t i = 0;
  for (; i + Batch::size <= result.size(); i += Batch::size)
    f(Batch::load_unaligned(numbers.data() + i)...).store_unaligned(result.data() + i);
  for (; i < result.size(); ++i) result[i] = f(numbers[i]...);
}

}  // namespace encoder
