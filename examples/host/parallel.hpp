// SPDX-License-Identifier: MIT
#pragma once

// The parallel loop that a program lends to the model, and the one way in which the model cuts its work.

#include <algorithm>
#include <cstddef>
#include <functional>

namespace host {

/// Calls task(0) ... task(tasks - 1), in any order and on any threads, and returns when all are done.
using Parallel = std::function<void(std::ptrdiff_t tasks, const std::function<void(std::ptrdiff_t)>& task)>;

/// The loop on the calling thread.
inline Parallel serial() {
  return [](std::ptrdiff_t tasks, const std::function<void(std::ptrdiff_t)>& task) {
    for (std::ptrdiff_t i = 0; i < tasks; ++i) task(i);
  };
}

/// Cuts [0, count) into pieces of `size` (the last may be shorter) and calls f(begin, length) for each.
///
/// The cut knows nothing of the number of threads. Every output element of the model is computed by one piece, in a
/// fixed order, so a seed gives the same bits on any number of threads.
template <class F>
void for_pieces(const Parallel& parallel, std::ptrdiff_t count, std::ptrdiff_t size, F&& f) {
  const auto task = [&](std::ptrdiff_t i) { f(i * size, std::min(size, count - i * size)); };
  parallel((count + size - 1) / size, std::ref(task));  // std::ref: a std::function of a reference does not allocate
}

/// The piece used for row-wise work: 64 tokens are enough for Eigen's products and leave tasks for a few cores.
inline constexpr std::ptrdiff_t row_piece = 64;

}  // namespace host
