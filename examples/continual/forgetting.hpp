// SPDX-License-Identifier: MIT
#pragma once

// Bits per byte of every domain after every task, and what they say about learning and forgetting.

#include <algorithm>
#include <cstddef>
#include <limits>
#include <vector>

namespace continual {

/// Row 0 is the base, row t the model after task t; column 0 is the base's own text, column d that of task d.
struct BitsMatrix {
  std::vector<std::vector<double>> rows;

  [[nodiscard]] std::size_t tasks() const { return rows.front().size() - 1; }
  [[nodiscard]] double operator()(std::size_t row, std::size_t domain) const { return rows[row][domain]; }

  /// The best that the domain has had up to this row: what is above it was forgotten.
  [[nodiscard]] double best(std::size_t row, std::size_t domain) const {
    double least = std::numeric_limits<double>::infinity();
    for (std::size_t r = 0; r <= row; ++r) least = std::min(least, rows[r][domain]);
    return least;
  }
  /// 0 or above: how much worse than at its best the domain is.
  [[nodiscard]] double change(std::size_t row, std::size_t domain) const {
    return rows[row][domain] - best(row, domain);
  }
};

/// Bits per byte; lower is better in all of them.
struct Summary {
  double learned = 0;    // mean over the tasks, each right after its own training
  double last = 0;       // mean over the tasks, after the last one
  double forgotten = 0;  // mean over all tasks but the last: in the end, less the best it ever had
  double transfer = 0;   // mean over all tasks but the first: right before its training, less the base
  double base_text = 0;  // the base's own text: in the end, less the base
};

/// Of a matrix with all its rows and at least two tasks.
inline Summary summary_of(const BitsMatrix& m) {
  const std::size_t tasks = m.tasks();
  Summary s;
  for (std::size_t t = 1; t <= tasks; ++t) {
    s.learned += m(t, t) / double(tasks);
    s.last += m(tasks, t) / double(tasks);
    if (t < tasks) s.forgotten += m.change(tasks, t) / double(tasks - 1);
    if (t > 1) s.transfer += (m(t - 1, t) - m(0, t)) / double(tasks - 1);
  }
  s.base_text = m(tasks, 0) - m(0, 0);
  return s;
}

}  // namespace continual
