// SPDX-License-Identifier: MIT
#pragma once

// The result of a run as one HTML file that needs nothing else: no script, no network.

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "adapt/byte_class.hpp"
#include "adapt/count_matrix.hpp"
#include "adapt/line_plot.hpp"
#include "adapt/svg.hpp"

namespace adapt {

struct Table {
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;
  std::vector<std::string> notes;
};

/// What one router did on the held-out text.
struct LayerRouting {
  std::string name;
  std::vector<double> load;   // [E], share of the gates' weight; sums to 1
  double mean_entropy = 0;    // of a token's weights, 0 (one expert) ... 1 (all alike)
  CountMatrix by_domain;      // [E x domains]
  CountMatrix by_byte_class;  // [E x byte classes]
};

struct MethodRouting {
  std::string name;
  std::vector<LayerRouting> layers;
};

struct Report {
  std::string title;
  std::vector<std::pair<std::string, std::string>> facts;
  Table results;
  std::string loss_unit = "bits per byte";
  std::vector<Curve> curves;
  std::vector<std::string> domains;  // the names of the groups of by_domain
  std::vector<MethodRouting> routing;
};

/// Writes beside `path` and renames, so that a reader sees the old report or the whole of this one.
/// Throws std::runtime_error naming the path if it cannot be written.
void write_report(const std::filesystem::path& path, const Report& report);

namespace detail {

inline constexpr std::string_view report_style = R"(
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
.c4 { stroke: var(--c4); } .c5 { stroke: var(--c5); }
)";

inline std::string element(std::string_view tag, const std::string& content) {
  return "<" + std::string(tag) + ">" + content + "</" + std::string(tag) + ">";
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

inline std::string results(const Table& results) {
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

inline std::string layer_table(const MethodRouting& method) {
  std::vector<std::vector<std::string>> rows;
  for (const LayerRouting& layer : method.layers) {
    rows.push_back({escaped(layer.name), svg::load_bars(layer.load), number(layer.mean_entropy, 2),
                    number(100 * explained_share(layer.by_domain), 1) + " %",
                    number(100 * explained_share(layer.by_byte_class), 1) + " %"});
  }
  return table({"layer", "load of each expert", "entropy of a token", "explained by domain", "by byte class"}, rows);
}

inline std::string routing(const MethodRouting& method, const std::vector<std::string>& domains) {
  const std::vector<std::string> classes(byte_class_names.begin(), byte_class_names.end());
  std::string s = element("h3", escaped(method.name)) + layer_table(method);
  for (std::size_t i = 0; i < method.layers.size(); ++i) {
    const LayerRouting& layer = method.layers[i];
    s += i == 0 ? "<details open=\"open\">" : "<details>";
    s += element("summary", escaped(layer.name)) + "<div class=\"maps\">";
    s += figure("Domains of an expert's tokens, %", svg::heat_map(layer.by_domain, domains, "experts by domains"));
    s += figure("Byte classes of an expert's tokens, %",
                svg::heat_map(layer.by_byte_class, classes, "experts by byte classes"));
    s += "</div></details>\n";
  }
  return s;
}

inline std::string page(const Report& report) {
  std::string body = element("h1", escaped(report.title)) + "\n" + facts(report.facts) + "\n";
  if (!report.results.rows.empty()) body += element("h2", "Results") + "\n" + results(report.results);
  if (!report.curves.empty()) {
    body += element("h2", "Training") + "\n<div class=\"wide\">" + line_plot(report.curves, "step", report.loss_unit) +
            "</div>\n";
  }
  if (!report.routing.empty()) {
    body +=
        element("h2", "Routing") + "\n" +
        element("p",
                "Load: share of the gates' weight that each expert gets; the dashed line is an even load. Entropy: 0 "
                "when a "
                "token uses one expert, 1 when it uses all alike. Explained: the share of the entropy of the choice "
                "of an expert that knowing a token's domain, or its byte class, removes. In the maps every row sums "
                "to 100; a row like the last says that the expert has no preference.") +
        "\n";
  }
  for (const MethodRouting& method : report.routing) body += routing(method, report.domains);
  return "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>" +
         element("title", escaped(report.title)) + element("style", std::string(report_style)) + "</head>\n" +
         element("body", body) + "</html>\n";
}

}  // namespace detail

inline void write_report(const std::filesystem::path& path, const Report& report) {
  std::filesystem::path beside = path;
  beside += ".part";
  std::ofstream out(beside, std::ios::binary | std::ios::trunc);
  out << detail::page(report);
  out.close();
  std::error_code error;
  if (out) std::filesystem::rename(beside, path, error);
  if (!out || error) throw std::runtime_error("report: cannot write " + path.string());
}

}  // namespace adapt
