// SPDX-License-Identifier: MIT
// write_page(): latencies and throughput of all runs, as one HTML page.
#pragma once

#include "report/line_plot.hpp"
#include "report/page.hpp"
#include "serve/live_table.hpp"
#include "serve/server.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace serve {

namespace detail {

/// Latency by percentile; the axis has the nines: 1 is p90, 2 is p99, 3 is p99.9.
inline report::Curve percentiles(const Result& result) {
  report::Curve curve{std::string(name_of(result.way)), {}};
  const double last = std::min(4.0, std::log10(double(std::max<std::uint64_t>(result.latencies.total(), 1))));
  for (double nines = 0.05; nines <= last; nines += 0.05)
    curve.points.emplace_back(nines, std::log10(1e3 * result.latencies.percentile(1 - std::pow(10, -nines))));
  return curve;
}

inline std::string section(Mix mix, const std::vector<Result>& results) {
  std::vector<report::Curve> curves;
  report::Table table{{result_columns.begin() + 1, result_columns.end()}, {}, {}};
  for (const Result& result : results) {
    if (result.mix != mix) continue;
    const auto cells = cells_of(result);
    table.rows.emplace_back(cells.begin() + 1, cells.end());
    curves.push_back(percentiles(result));
  }
  return report::element("h2", report::escaped(name_of(mix))) + "\n" + report::table(table) +
         report::figure("Latency by percentile: 1 on the axis is p90, 2 is p99, 3 is p99.9",
                        report::line_plot(curves, "nines of the percentile", "log10 of ms"));
}

}  // namespace detail

/// Throws std::runtime_error naming the path if it cannot be written.
inline void write_page(const std::filesystem::path& path, const Options& options,
                       const std::vector<std::pair<std::string, std::string>>& facts,
                       const std::vector<Result>& results) {
  using report::element;
  std::string body = element("h1", "Serving " + std::to_string(options.adapters) + " adapters") + "\n" +
                     report::facts(facts) + "\n" +
                     element("p",
                             "Each request is one row with an adapter of its own, or none. A batch takes what waits. "
                             "full/s is how many rows a second full batches have, without clients and queue. "
                             "Latency is from entering the queue to the end of the batch; waiting is how many requests "
                             "were in the queue when time was over, which is many where a way cannot keep up. All ways "
                             "run on the same products, bases and batches.");
  for (const Mix mix : options.mixes) body += detail::section(mix, results);
  report::write_page(path, "mole: serving adapters", body);
}

}  // namespace serve
