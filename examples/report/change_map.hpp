// SPDX-License-Identifier: MIT
#pragma once

// A matrix of values, colored by how much worse each is than it could be.

#include "report/svg.hpp"

namespace report {

struct ChangeCell {
  double value = 0;     // the number in the cell
  double change = 0;    // below it, and its color; 0 is none
  bool marked = false;  // gets a frame
};

struct ChangeMap {
  std::vector<std::string> columns = {}, rows = {};
  std::vector<std::vector<ChangeCell>> cells = {};
  double strongest = 1;     // the change of the full color, so that several maps can share a legend
  std::string legend = {};  // what the color means
};

/// Every cell with its numbers, and a legend of five colors below.
inline std::string change_map(const ChangeMap& map, std::string_view label) {
  constexpr double left = 150, cell_width = 92, cell_height = 42, head = 30, foot = 52;
  const auto columns = double(map.columns.size()), rows = double(map.rows.size());
  const double width = left + cell_width * columns + 8, height = head + cell_height * rows + foot;
  const double strongest = map.strongest > 0 ? map.strongest : 1;
  const auto opacity = [&](double change) { return 0.04 + 0.72 * std::clamp(change / strongest, 0.0, 1.0); };
  std::string s = svg::open(width, height, label);
  for (std::size_t c = 0; c < map.columns.size(); ++c)
    s += svg::text(left + cell_width * (double(c) + 0.5), head - 10, "middle", svg::shortened(map.columns[c]));
  for (std::size_t r = 0; r < map.cells.size(); ++r) {
    const double y = head + cell_height * double(r);
    s += svg::text(left - 10, y + cell_height / 2 + 3, "end", map.rows[r]);
    for (std::size_t c = 0; c < map.cells[r].size(); ++c) {
      const ChangeCell& cell = map.cells[r][c];
      const double x = left + cell_width * double(c);
      s += svg::rect("heat", x, y, cell_width - 3, cell_height - 3, opacity(cell.change));
      if (cell.marked) s += svg::rect("frame", x + 1, y + 1, cell_width - 5, cell_height - 5, 0);
      s += svg::text(x + cell_width / 2 - 1, y + 17, "middle", number(cell.value, 3));
      if (cell.change > 0) s += svg::text(x + cell_width / 2 - 1, y + 32, "middle", "+" + number(cell.change, 3));
    }
  }
  const double y = head + cell_height * rows + 14;
  for (int i = 0; i <= 4; ++i) {
    const double change = strongest * i / 4, x = left + 62 * i;
    s += svg::rect("heat", x, y, 60, 14, opacity(change));
    s += svg::text(x + 30, y + 28, "middle", i == 0 ? "0" : "+" + number(change, 2));
  }
  return s + svg::text(left - 10, y + 12, "end", map.legend) + "</svg>";
}

}  // namespace report
