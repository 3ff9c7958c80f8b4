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

inline const std::vector<std::string> result_columns{"mix",    "way",      "requests/s", "batch",   "p50 ms", "p90 ms",
                                                     "p99 ms", "p99.9 ms", "swaps",      "refused", "waiting"};

inline std::vector<std::string> cells_of(const Result& result) {
  return {std::string(name_of(result.mix)), std::string(name_of(result.way)), text_of(result.per_second(), 0),
          text_of(result.mean_batch(), 1),  milliseconds(result, 0.5),        milliseconds(result, 0.9),
          milliseconds(result, 0.99),       milliseconds(result, 0.999),      std::to_string(result.swaps),
          std::to_string(result.refused),   std::to_string(result.waiting)};
}

/// On a terminal all rows are redrawn; elsewhere there is a line for each result, when it is complete, and no control
/// character.
class LiveTable {
 public:
  explicit LiveTable(std::FILE* stream = stderr) : stream_(stream), terminal_(training::is_terminal(stream)) {}

  void show(const Result& so_far) {
    if (terminal_) draw(so_far);
  }
  void complete(const Result& result) {
    if (terminal_) draw(result);
    done_.push_back(cells_of(result));
    if (!terminal_)
      std::fprintf(stream_, "%s, %s: %s requests/s, p99 %s ms\n", done_.back()[0].c_str(), done_.back()[1].c_str(),
                   done_.back()[2].c_str(), done_.back()[6].c_str());
  }

 private:
  void draw(const Result& so_far) {
    report::Table table{result_columns, done_, {}};
    table.rows.push_back(cells_of(so_far));
    if (lines_ > 0) std::fprintf(stream_, "\x1b[%zuA\x1b[J", lines_);
    report::print(table, stream_);
    std::fflush(stream_);
    lines_ = table.rows.size() + 1;
  }

  std::FILE* stream_;
  bool terminal_;
  std::vector<std::vector<std::string>> done_;
  std::size_t lines_ = 0;
};

}  // namespace serve
