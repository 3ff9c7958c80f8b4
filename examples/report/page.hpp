// SPDX-License-Identifier: MIT
#pragma once

// One HTML page that needs nothing else: no script, no network.

#include "report/svg.hpp"
#include "report/table.hpp"

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace report {

inline constexpr std::string_view page_style = R"(
:root { color-scheme: light dark; --paper: #fcfcfb; --ink: #1d2126; --soft: #626a73; --rule: #dfe2e5; --heat: #2f7ed8;
  --c0: #2f7ed8; --c1: #d9622b; --c2: #1f9d72; --c3: #a04fc4; --c4: #b98a00; --c5: #c93a63; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e6e8ea; --soft: #9aa3ad; --rule: #343a41;
  --heat: #4a90e2; --c0: #5b9ff0; --c1: #ef8350; --c2: #3fc493; --c3: #c07ee0; --c4: #d9ae33; --c5: #ec6a8d; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; max-width: 66rem;
  margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1.25rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 0.75rem; }
h3 { font-size: 1rem; margin: 1.75rem 0 0.5rem; } p, .note { color: var(--soft); max-width: 48rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.2rem 1.5rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 0.3rem 0.9rem; border-bottom: 1px solid var(--rule); vertical-align: middle; }
th { color: var(--soft); font-weight: 600; } th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: nowrap; }
details { margin: 0.4rem 0; } summary { cursor: pointer; } .maps { display: flex; flex-wrap: wrap; gap: 0.5rem 1.5rem; }
figure { margin: 0.5rem 0; } figcaption { color: var(--soft); font-size: 0.87rem; }
svg { display: block; overflow: visible; font: 12px system-ui, sans-serif; } td svg { margin-left: auto; }
.ink { fill: var(--ink); } .heat { fill: var(--heat); } .axis { stroke: var(--soft); } .grid { stroke: var(--rule); }
.even { stroke: var(--soft); stroke-dasharray: 2 2; } .curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); } .c3 { stroke: var(--c3); }
.frame { stroke: var(--ink); stroke-width: 1.5; }
.c4 { stroke: var(--c4); } .c5 { stroke: var(--c5); } .d1 { stroke-dasharray: 7 3; } .d2 { stroke-dasharray: 2 3; }
)";

inline std::string element(std::string_view tag, const std::string& content) {
  std::string s = "<";
  s.append(tag).append(">").append(content).append("</").append(tag).append(">");
  return s;
}

inline std::string facts(const std::vector<std::pair<std::string, std::string>>& facts) {
  std::string s;
  for (const auto& [name, value] : facts) s += element("dt", escaped(name)) + element("dd", escaped(value)) + "\n";
  return element("dl", s);
}

/// Cells are HTML already.
inline std::string table(const std::vector<std::string>& columns, const std::vector<std::vector<std::string>>& rows) {
  std::string head;
  for (const std::string& column : columns) head += element("th", column);
  std::string body;
  for (const auto& row : rows) {
    std::string cells;
    for (const std::string& cell : row) cells += element("td", cell);
    body += element("tr", cells) + "\n";
  }
  const std::string inner = element("thead", element("tr", head)) + "\n" + element("tbody", body);
  return "<div class=\"wide\">" + element("table", inner) + "</div>\n";
}

inline std::string table(const Table& results) {
  const auto escape_all = [](std::vector<std::string> cells) {
    for (std::string& cell : cells) cell = escaped(cell);
    return cells;
  };
  std::vector<std::vector<std::string>> rows;
  for (const auto& row : results.rows) rows.push_back(escape_all(row));
  std::string s = table(escape_all(results.columns), rows);
  for (const std::string& note : results.notes) s += element("p", escaped(note)) + "\n";
  return s;
}

inline std::string figure(const std::string& caption, const std::string& drawing) {
  return "<figure class=\"wide\">" + element("figcaption", escaped(caption)) + drawing + "</figure>\n";
}

/// Writes beside `path` and renames, so that a reader sees the old page or the whole of this one.
/// `style` is for what this page alone has. Throws std::runtime_error naming the path if it cannot be written.
inline void write_page(const std::filesystem::path& path, const std::string& title, const std::string& body,
                       const std::string& style = {}) {
  std::filesystem::path beside = path;
  beside += ".part";
  std::ofstream out(beside, std::ios::binary | std::ios::trunc);
  out << "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>"
      << element("title", escaped(title)) << element("style", std::string(page_style) + style) << "</head>\n"
      << element("body", body) << "</html>\n";
  out.close();
  std::error_code error;
  if (out) std::filesystem::rename(beside, path, error);
  if (!out || error) throw std::runtime_error("report: cannot write " + path.string());
}

}  // namespace report
