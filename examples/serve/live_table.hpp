// SPDX-License-Identifier: MIT
// LiveTable: results while they come in, redrawn in place on a terminal.
#pragma once

#include "report/svg.hpp"
#include "report/table.hpp"
#include "serve/server.hpp"
#include "training/progress.hpp"

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

namespace serve {

inline std::string text_of(double value, int decimals) {
  return std::isfinite(value) ? report::number(value, decimals) : "-";
}
inline std::string milliseconds(const Result& result, double share) {
  return text_of(1e3 * result.latencies.percentile(share), 2);
}

/// full/s: rows a second of full batches, without clients and queue
inline const std::vector<std::string> result_columns{"mix",      "way",    "full/s",  "requests/s",
                                                     "batch",    "p50 ms", "p90 ms",  "p99 ms",
                                                     "p99.9 ms", "swaps",  "refused", "waiting"};

inline std::vector<std::string> cells_of(const Result& result) {
  return {std::string(name_of(result.mix)), std::string(name_of(result.way)), text_of(result.capacity(), 0),
          text_of(result.per_second(), 0),  text_of(result.mean_batch(), 1),  milliseconds(result, 0.5),
          milliseconds(result, 0.9),        milliseconds(result, 0.99),       milliseconds(result, 0.999),
          std::to_string(result.swaps),     std::to_string(result.refused),   std::to_string(result.waiting)};
}

/// On a terminal all rows are redrawn; elsewhere there is a line for each result, when it is complete, and no control
/// character.
class LiveTable {
 public:
  explicit LiveTable(std::FILE* stream = stderr) : stream_(stream), terminal_(training::is_terminal(stream)) {}

  /// Those of earlier mixes, and of this one, of which the one that runs is newer than in `of_mix`.
  void show(const std::vector<Result>& earlier, const std::vector<Result>& of_mix, const Result& running) {
    if (!terminal_) return;
    report::Table table{result_columns, {}, {}};
    for (const Result& result : earlier) table.rows.push_back(cells_of(result));
    for (const Result& result : of_mix) table.rows.push_back(cells_of(result.way == running.way ? running : result));
    if (lines_ > 0) std::fprintf(stream_, "\x1b[%zuA\x1b[J", lines_);
    report::print(table, stream_);
    std::fflush(stream_);
    lines_ = table.rows.size() + 1;
  }
  void complete(const Result& result) const {
    if (terminal_) return;
    const auto cells = cells_of(result);
    std::fprintf(stream_, "%s, %s: %s requests/s, p99 %s ms\n", cells[0].c_str(), cells[1].c_str(), cells[3].c_str(),
                 cells[7].c_str());
  }

 private:
  std::FILE* stream_;
  bool terminal_;
  std::size_t lines_ = 0;
};

}  // namespace serve
