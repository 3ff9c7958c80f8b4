// SPDX-License-Identifier: MIT
#pragma once

// What a run of `adapt` found, as one HTML page.

#include "adapt/byte_class.hpp"
#include "adapt/count_matrix.hpp"
#include "adapt/routing_drawings.hpp"
#include "report/dot_plot.hpp"
#include "report/line_plot.hpp"
#include "report/page.hpp"
#include "report/table.hpp"

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace adapt {

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
  report::Table results;
  std::string loss_unit = "bits per byte";
  std::vector<report::Dot> by_active, by_speed;  // one dot a method
  std::vector<report::Curve> curves;
  std::vector<std::string> domains;  // the names of the groups of by_domain
  std::vector<MethodRouting> routing;
};

/// Writes beside `path` and renames, so that a reader sees the old report or the whole of this one.
/// Throws std::runtime_error naming the path if it cannot be written.
void write_report(const std::filesystem::path& path, const Report& report);

namespace detail {

using report::element;
using report::escaped;
using report::number;

inline std::string layer_table(const MethodRouting& method) {
  std::vector<std::vector<std::string>> rows;
  for (const LayerRouting& layer : method.layers) {
    rows.push_back({escaped(layer.name), load_bars(layer.load), number(layer.mean_entropy, 2),
                    number(100 * explained_share(layer.by_domain), 1) + " %",
                    number(100 * explained_share(layer.by_byte_class), 1) + " %"});
  }
  return report::table({"layer", "load of each expert", "entropy of a token", "explained by domain", "by byte class"},
                       rows);
}

inline std::string routing(const MethodRouting& method, const std::vector<std::string>& domains) {
  const std::vector<std::string> classes(byte_class_names.begin(), byte_class_names.end());
  constexpr std::size_t most_rows = 10;  // more experts than that are a table of bars, not a map
  std::string s = element("h3", escaped(method.name)) + layer_table(method);
  for (std::size_t i = 0; i < method.layers.size() && method.layers[i].load.size() <= most_rows; ++i) {
    const LayerRouting& layer = method.layers[i];
    s += i == 0 ? "<details open=\"open\">" : "<details>";
    s += element("summary", escaped(layer.name)) + "<div class=\"maps\">";
    s += report::figure("Domains of an expert's tokens, %", heat_map(layer.by_domain, domains, "experts by domains"));
    s += report::figure("Byte classes of an expert's tokens, %",
                        heat_map(layer.by_byte_class, classes, "experts by byte classes"));
    s += "</div></details>\n";
  }
  return s;
}

inline std::string body(const Report& report) {
  std::string body = element("h1", escaped(report.title)) + "\n" + report::facts(report.facts) + "\n";
  if (!report.results.rows.empty()) body += element("h2", "Results") + "\n" + report::table(report.results);
  for (const auto& [dots, label] : {std::pair(&report.by_active, "active parameters, thousands"),
                                    std::pair(&report.by_speed, "bytes trained on in a second, thousands")})
    if (dots->size() > 1)
      body += "<div class=\"wide\">" +
              report::dot_plot(*dots, label, report.loss_unit + ", mean of the adapted domains") + "</div>\n";
  if (!report.curves.empty()) {
    body += element("h2", "Training") + "\n<div class=\"wide\">" +
            report::line_plot(report.curves, "step", report.loss_unit) + "</div>\n";
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
  return body;
}

}  // namespace detail

inline void write_report(const std::filesystem::path& path, const Report& report) {
  report::write_page(path, report.title, detail::body(report));
}

}  // namespace adapt
