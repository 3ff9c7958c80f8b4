// SPDX-License-Identifier: MIT
// orthogonal_init(): an A and a B that are not zero, and whose product is.
#pragma once

#include "mole/core/qr.hpp"
#include "mole/core/random.hpp"
#include "mole/init/lora_experts.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// A = Q_even^T N_A / 10,   B = N_B Q_odd / 10, where Q_even and Q_odd are the rows 0, 2, 4 ... and 1, 3, 5 ... of an
/// orthogonal Q [r x r] and N_A [r/2 x I], N_B [O x r/2] are normal: B A is 0 up to rounding, while both learn from the
/// first step. Throws Error(option) for an expert of an odd number of ranks or one A for all, Error(shape) unless A and
/// B have a row for each rank; then nothing has changed.
/// Source: huggingface/peft, init_lora_weights = "orthogonal".
template <LoraExperts Experts, std::uniform_random_bit_generator Generator>
void orthogonal_init(Experts& experts, Generator& generator) {
  detail::require_tables("orthogonal_init", experts);
  detail::require_own_a("orthogonal_init", experts);
  for (Index e = 0; e < experts.experts(); ++e)
    require(experts.blocks().size(e) % 2 == 0, ErrorCode::option,
            "orthogonal_init: expected an even number of ranks, found ", experts.blocks().size(e), " of expert ", e);
  const auto normal = [&](Index rows, Index cols) {
    Matrix<double> numbers(rows, cols);
    for (double& number : numbers.elements()) number = standard_normal(generator);
    return numbers;
  };
  for (Index e = 0; e < experts.experts(); ++e) {
    const Index r = experts.blocks().size(e), half = r / 2;
    if (r == 0) continue;
    const Matrix<double> q = qr(normal(r, r)).q;
    const auto every_second = [&](Index first) {  // [r x r/2]
      Matrix<double> columns(r, half);
      for (Index j = 0; j < r; ++j)
        for (Index h = 0; h < half; ++h) columns(j, h) = q(2 * h + first, j);
      return columns;
    };
    const Matrix<double> a = detail::product(every_second(0), normal(half, experts.in()));
    const Matrix<double> b = detail::product(every_second(1), normal(half, experts.out()));
    const Matrix<double> a_columns = detail::transposed(a), b_columns = detail::transposed(b);
    for (Index j = 0; j < r; ++j) detail::set_rank(experts, e, j, a_columns, j, 0.1, b_columns, j, 0.1);
  }
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
