// SPDX-License-Identifier: MIT
#pragma once

// A table of text, as a program prints it.

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

namespace report {

struct Table {
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;
  std::vector<std::string> notes;  // lines below the table
};

/// Columns as wide as what is in them, the first one to the left, then the notes.
inline void print(const Table& table, std::FILE* stream = stdout) {
  std::vector<std::size_t> widths(table.columns.size());
  const auto measure = [&](const std::vector<std::string>& cells) {
    for (std::size_t c = 0; c < cells.size(); ++c) widths[c] = std::max(widths[c], cells[c].size());
  };
  measure(table.columns);
  for (const auto& row : table.rows) measure(row);
  const auto line = [&](const std::vector<std::string>& cells) {
    for (std::size_t c = 0; c < cells.size(); ++c)
      std::fprintf(stream, c == 0 ? "%-*s" : "  %*s", int(widths[c]), cells[c].c_str());
    std::fprintf(stream, "\n");
  };
  line(table.columns);
  for (const auto& row : table.rows) line(row);
  for (const std::string& note : table.notes) std::fprintf(stream, "%s\n", note.c_str());
}

}  // namespace report
