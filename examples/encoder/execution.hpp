// SPDX-License-Identifier: MIT
// Execution: the threads of the encoder, and its loop over rows.
#pragma once

#include "mole/core/view.hpp"
#include "mole/execution/simd.hpp"
#include "mole/execution/thread_pool.hpp"

#include <algorithm>

namespace encoder {

/// All products of the encoder, and its loops over rows, run on one pool.
using Execution = decltype(mole::Simd{mole::ThreadPool{1}});

/// f(row) for rows 0 ... rows - 1, each on one thread.
template <class F>
void for_each_row(const Execution& execution, mole::Index rows, F f) {
  constexpr mole::Index piece = 16;
  execution.parallel_for((rows + piece - 1) / piece, [&](mole::Index task) {
    for (mole::Index row = task * piece; row < std::min(rows, (task + 1) * piece); ++row) f(row);
  });
}

}  // namespace encoder
