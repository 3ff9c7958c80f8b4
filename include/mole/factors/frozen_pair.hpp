// SPDX-License-Identifier: MIT
// FrozenPair: a random A and B that all layers of a model share.
#pragma once

#include "mole/core/matrix.hpp"
#include "mole/core/random.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <memory>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A and B for the widest layer, rank-major; a narrower layer reads the first columns of both.
///
///   a [ranks x largest I]   b [ranks x largest O]
template <class T>
struct FrozenPair {
  Matrix<T> a, b;

  /// Kaiming uniform: within 1/sqrt(largest I) for A, within 1/sqrt(ranks) for B. Throws Error(option) for sizes
  /// below 1.
  template <std::uniform_random_bit_generator Generator>
  static std::shared_ptr<const FrozenPair> random(Index ranks, Index largest_in, Index largest_out,
                                                  Generator& generator) {
    require(ranks >= 1 && largest_in >= 1 && largest_out >= 1, ErrorCode::option,
            "FrozenPair: expected ranks, in and out of at least 1, found ", ranks, ", ", largest_in, " and ",
            largest_out);
    FrozenPair pair{Matrix<T>(ranks, largest_in), Matrix<T>(ranks, largest_out)};
    fill_uniform(pair.a.view(), 1 / std::sqrt(double(largest_in)), generator);
    fill_uniform(pair.b.view(), 1 / std::sqrt(double(ranks)), generator);
    return std::make_shared<const FrozenPair>(std::move(pair));
  }

  /// A number that differs, almost certainly, for other numbers or sizes. Reads all of A and B.
  std::uint64_t fingerprint() const {
    std::uint64_t print = 0;
    for (const Matrix<T>* table : {&a, &b}) {
      print = mix_bits(print ^ std::uint64_t(table->rows()));
      print = mix_bits(print ^ std::uint64_t(table->cols()));
      for (T element : table->elements()) print = mix_bits(print ^ std::bit_cast<std::uint64_t>(double(element)));
    }
    return print;
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
