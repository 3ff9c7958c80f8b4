// SPDX-License-Identifier: MIT
#pragma once

// What routers did, drawn: the load of each expert, and whose tokens it gets.

#include "adapt/count_matrix.hpp"
#include "report/svg.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

namespace adapt {

namespace svg = report::svg;

/// One bar per share; the line across is an even distribution.
inline std::string load_bars(const std::vector<double>& load) {
  constexpr double height = 28;
  constexpr double step = 11;
  const double even = load.empty() ? 0 : 1.0 / static_cast<double>(load.size());
  const double top = std::max(2 * even, load.empty() ? 1 : *std::max_element(load.begin(), load.end()));
  const double width = step * static_cast<double>(load.size()) + 2;
  std::string s = svg::open(width, height, "share of each expert");
  for (std::size_t e = 0; e < load.size(); ++e) {
    const double bar = height * std::clamp(load[e] / top, 0.0, 1.0);
    s += svg::rect("heat", 1 + step * static_cast<double>(e), height - bar, step - 2, bar, 0.8);
  }
  return s + svg::line("even", 0, height - height * even / top, width, height - height * even / top) + "</svg>";
}

/// Experts by groups: every row shows how the tokens of one expert share out among the groups, and the last row how
/// all do.
inline std::string heat_map(const CountMatrix& m, const std::vector<std::string>& groups, std::string_view label) {
  constexpr double left = 78, cell_width = 62, cell_height = 22, head = 58;
  const double width = left + cell_width * static_cast<double>(m.groups) + 36;
  const double height = head + cell_height * static_cast<double>(m.experts + 1) + 8;
  std::string s = svg::open(width, height, label);
  for (std::size_t g = 0; g < m.groups; ++g) {
    const std::string x = report::number(left + cell_width * (static_cast<double>(g) + 0.5) - 8, 1);
    s += "<text class=\"ink\" transform=\"translate(" + x + "," + report::number(head - 6, 1) + ") rotate(-28)\">" +
         report::escaped(g < groups.size() ? svg::shortened(groups[g]) : std::to_string(g)) + "</text>";
  }
  for (std::size_t e = 0; e <= m.experts; ++e) {
    const bool all = e == m.experts;
    const double y = head + cell_height * static_cast<double>(e) + (all ? 4 : 0);
    s += svg::text(left - 8, y + 15, "end", all ? "all tokens" : "expert " + std::to_string(e));
    std::vector<double> row(m.groups);
    for (std::size_t i = all ? 0 : e; i < (all ? m.experts : e + 1); ++i) {
      for (std::size_t g = 0; g < m.groups; ++g) row[g] += m(i, g);
    }
    double total = 0;
    for (const double count : row) total += count;
    for (std::size_t g = 0; g < m.groups; ++g) {
      const double share = total > 0 ? row[g] / total : 0;
      const double x = left + cell_width * static_cast<double>(g);
      s += svg::rect("heat", x, y, cell_width - 2, cell_height - 2, 0.04 + 0.76 * share);
      s += svg::text(x + cell_width / 2 - 1, y + 15, "middle",
                     total > 0 ? std::to_string(std::lround(100 * share)) : "-");
    }
  }
  return s + "</svg>";
}

}  // namespace adapt
