// SPDX-License-Identifier: MIT
// Page, write_page(): what the experts of an adapter do, as one HTML page.
#pragma once

#include "adapt/routing_drawings.hpp"
#include "report/page.hpp"
#include "route/byte_drawings.hpp"
#include "route/observer.hpp"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace route {

struct Page {
  std::string title;
  std::vector<std::pair<std::string, std::string>> facts;
  std::vector<std::string> domains;
  const std::vector<LayerRecord>& layers;
};

namespace detail {

using report::element;
using report::escaped;
using report::number;

/// Numbers as shares of their sum; of nothing, if that is 0.
template <class Number>
std::vector<double> shares_of(std::span<const Number> numbers) {
  std::vector<double> shares(numbers.begin(), numbers.end());
  const double total = std::accumulate(shares.begin(), shares.end(), 0.0);
  for (double& share : shares) share = total > 0 ? share / total : 0;
  return shares;
}

inline std::string overview(const Page& page) {
  std::vector<std::vector<std::string>> rows;
  for (const LayerRecord& layer : page.layers)
    rows.push_back({"<a href=\"#" + escaped(layer.name) + "\">" + escaped(layer.name) + "</a>",
                    adapt::load_bars(shares_of(layer.stats.load())), adapt::load_bars(shares_of(layer.stats.mass())),
                    layer.added.empty() ? "-" : adapt::load_bars(shares_of(std::span<const double>(layer.added))),
                    number(layer.stats.mean_experts_per_token(), 2), std::to_string(layer.stats.dead_experts()),
                    number(100 * adapt::explained_share(layer.by_domain), 1) + " %"});
  return report::table({"layer", "load", "gate mass", "added", "experts of a byte", "unused", "explained by domain"},
                       rows) +
         element(
             "p",
             "Load: how many bytes each expert serves. Gate mass: the sum of its gates. Added: the length of what it "
             "adds to the output of the layer, shared experts included. All as shares; the dashed line is an even "
             "one. Explained: the share of the entropy of the choice of an expert that knowing the domain removes.");
}

inline std::string legend(std::size_t experts) {
  std::string s;
  for (std::size_t e = 0; e < experts; ++e)
    s += "<span class=\"key " + class_of(e) + "\">" + std::to_string(e) + "</span>";
  return "<p class=\"legend\">Expert " + s + "</p>\n";
}

inline std::string depth(const Page& page) {
  std::string s;
  for (std::size_t d = 0; d < page.domains.size(); ++d) {
    std::vector<std::pair<std::string, const Piece*>> rows;
    for (const LayerRecord& layer : page.layers) rows.emplace_back(layer.name, &layer.pieces[d]);
    s += report::figure(page.domains[d], strongest_experts(rows));
  }
  return s;
}

inline std::string layer(const LayerRecord& layer, const Page& page, bool open) {
  std::string s = "<details id=\"" + escaped(layer.name) + (open ? "\" open=\"open\">" : "\">");
  s += element("summary", escaped(layer.name));
  s += report::figure("Domains of an expert's bytes by its gates, %",
                      adapt::heat_map(layer.by_domain, page.domains, "experts by domains"));
  for (std::size_t d = 0; d < page.domains.size(); ++d) {
    s += element("h3", escaped(page.domains[d])) + colored_text(layer.pieces[d]);
    if (!layer.added.empty())
      s += report::figure("What each expert adds to each byte",
                          attribution_map(layer.pieces[d], layer.by_domain.experts));
  }
  return s + "</details>\n";
}

inline std::string body(const Page& page) {
  std::size_t experts = 0;
  bool attributed = false;
  for (const LayerRecord& layer : page.layers) {
    experts = std::max(experts, layer.by_domain.experts);
    attributed = attributed || !layer.added.empty();
  }
  std::string s = element("h1", escaped(page.title)) + "\n" + report::facts(page.facts) + "\n";
  s += element("h2", "Experts") + "\n" + overview(page);
  s += element("h2", "Through the layers") + "\n" +
       element("p", "The expert with the largest gate of each byte, in every layer, bottom first.") + legend(experts) +
       depth(page);
  s += element("h2", "Layer by layer") + "\n" +
       element("p",
               "The color of a byte is that of its expert with the largest gate; point at it for all of its experts. " +
                   std::string(
                       attributed ? "Below, a column is a byte and a row an expert: the darker a cell, the larger the "
                                    "share of this expert in what all experts add to the byte. Orange is a share below "
                                    "0: the expert works against the others."
                                  : "The experts of this method act on each other, so what is added to a byte is no "
                                    "sum over experts.")) +
       legend(experts);
  for (std::size_t i = 0; i < page.layers.size(); ++i) s += layer(page.layers[i], page, i == 0);
  return s;
}

}  // namespace detail

/// Throws std::runtime_error naming the path if it cannot be written.
inline void write_page(const std::filesystem::path& path, const Page& page) {
  std::size_t experts = 0;
  for (const LayerRecord& layer : page.layers) experts = std::max(experts, layer.by_domain.experts);
  report::write_page(path, page.title, detail::body(page), style_of(experts));
}

}  // namespace route
