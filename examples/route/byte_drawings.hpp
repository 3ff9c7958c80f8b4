// SPDX-License-Identifier: MIT
// Text whose bytes are colored by their experts, and maps of experts by bytes.
#pragma once

#include "report/svg.hpp"
#include "route/observer.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace route {

namespace svg = report::svg;

/// One color for each expert, classes e0, e1, ...: hues around the circle, and in turns lighter and darker ones, so
/// that neighbors differ.
inline std::string style_of(std::size_t experts) {
  std::string s = R"(
a { color: inherit; text-decoration-color: var(--rule); text-underline-offset: 0.2em; }
pre { font: 14px/1.7 ui-monospace, "DejaVu Sans Mono", monospace; white-space: pre-wrap; overflow-wrap: anywhere;
  max-width: 60rem; margin: 0.5rem 0; } pre span { padding: 0.1em 0; } .sign { color: var(--soft); }
.legend { color: var(--soft); } .key { display: inline-block; min-width: 1.6em; text-align: center; color: var(--ink); }
svg .byte { font: 11px ui-monospace, "DejaVu Sans Mono", monospace; fill: var(--ink); } .against { fill: var(--c1); }
)";
  for (std::size_t e = 0; e < experts; ++e) {
    std::string color = "hsl(";
    color += std::to_string(e * 360 / experts) + (e % 2 == 0 ? " 75% 60% / 0.55)" : " 75% 40% / 0.55)");
    s += ".e" + std::to_string(e) + " { background: " + color + "; fill: " + color + "; }\n";
  }
  return s;
}

inline std::string class_of(std::size_t expert) {
  std::string s = "e";
  return s += std::to_string(expert);
}

/// As HTML; `sign` for bytes that are not printed as themselves.
inline std::string glyph(std::uint8_t byte, bool& sign) {
  sign = byte < 0x20 || byte >= 0x7f;
  if (!sign) return report::escaped(std::string(1, char(byte)));
  if (byte == 10) return "&#8629;";  // arrow down and left
  if (byte == 9) return "&#8594;";   // arrow to the right
  return "&#183;";                   // middle dot
}

/// "expert 3: gate 0.61, share 72 %; ..."
inline std::string words_of(const std::vector<Part>& parts) {
  std::string s;
  for (const Part& part : parts)
    s += std::string(s.empty() ? "" : "; ") + "expert " + std::to_string(part.expert) + ": gate " +
         report::number(part.gate, 2) + ", share " + report::number(100 * part.share, 0) + " %";
  return s.empty() ? "no expert" : s;
}

inline std::string colored_text(const Piece& piece) {
  std::string s = "<pre>";
  for (std::size_t n = 0; n < piece.bytes.size(); ++n) {
    bool sign = false;
    const std::string shown = glyph(piece.bytes[n], sign);
    const std::string css =
        (piece.parts[n].empty() ? "" : class_of(std::size_t(piece.parts[n].front().expert))) + (sign ? " sign" : "");
    s += "<span class=\"" + css + "\" title=\"" + words_of(piece.parts[n]) + "\">" + shown + "</span>";
    if (piece.bytes[n] == '\n') s += '\n';
  }
  return s + "</pre>\n";
}

/// A grid whose columns are the bytes of a piece, drawn above it, and whose rows have names.
class ByteGrid {
 public:
  ByteGrid(const Piece& piece, std::size_t rows, double row_height, std::string_view label) : height_(row_height) {
    s_ = svg::open(left + cell * double(piece.bytes.size()) + 4, head + height_ * double(rows) + 4, label);
    for (std::size_t n = 0; n < piece.bytes.size(); ++n) {
      bool sign = false;
      const std::string shown = glyph(piece.bytes[n], sign);
      if (shown == " ") continue;
      s_ += "<text class=\"byte" + std::string(sign ? " sign" : "") + "\" x=\"" +
            report::number(left + cell * (double(n) + 0.5), 1) + "\" y=\"" + report::number(head - 5, 0) +
            "\" text-anchor=\"middle\">" + shown + "</text>";
    }
  }

  void name(std::size_t row, const std::string& name) {
    s_ += svg::text(left - 8, head + height_ * (double(row) + 0.5) + 4, "end", name);
  }
  /// Colors the cells of a row at these columns.
  void fill(std::size_t row, const std::vector<std::size_t>& columns, const std::string& css, double opacity = 1) {
    if (columns.empty()) return;
    s_ += "<path class=\"" + css + "\" fill-opacity=\"" + report::number(opacity, 2) + "\" d=\"";
    for (const std::size_t n : columns)
      s_ += "M" + report::number(left + cell * double(n), 0) + " " + report::number(head + height_ * double(row), 0) +
            "h" + report::number(cell - 1, 0) + "v" + report::number(height_ - 1, 0) + "h-" +
            report::number(cell - 1, 0) + "z";
    s_ += "\"/>";
  }
  std::string drawing() const { return s_ + "</svg>"; }

 private:
  static constexpr double left = 96, head = 20, cell = 7;
  double height_;
  std::string s_;
};

/// Rows are layers: the expert with the largest gate of each byte.
inline std::string strongest_experts(const std::vector<std::pair<std::string, const Piece*>>& rows) {
  ByteGrid grid(*rows.front().second, rows.size(), 15, "strongest expert of each byte in each layer");
  for (std::size_t row = 0; row < rows.size(); ++row) {
    grid.name(row, rows[row].first);
    std::vector<std::vector<std::size_t>> bytes_of;
    const auto& parts = rows[row].second->parts;
    for (std::size_t n = 0; n < parts.size(); ++n) {
      if (parts[n].empty()) continue;
      const auto e = std::size_t(parts[n].front().expert);
      if (bytes_of.size() <= e) bytes_of.resize(e + 1);
      bytes_of[e].push_back(n);
    }
    for (std::size_t e = 0; e < bytes_of.size(); ++e) grid.fill(row, bytes_of[e], class_of(e));
  }
  return grid.drawing();
}

/// Rows are experts: the share of each in what all experts add to a byte, in five steps of darkness.
inline std::string attribution_map(const Piece& piece, std::size_t experts) {
  constexpr std::size_t steps = 5;
  const bool many = experts > 16;
  ByteGrid grid(piece, experts, many ? 6 : 15, "share of each expert in what is added to each byte");
  struct Cells {
    std::array<std::vector<std::size_t>, steps + 1> for_it, against_it;
  };
  std::vector<Cells> cells(experts);
  for (std::size_t n = 0; n < piece.parts.size(); ++n)
    for (const Part& part : piece.parts[n]) {
      if (!std::isfinite(part.share)) continue;
      const auto step = std::size_t(std::lround(std::min(1.0, std::abs(part.share)) * double(steps)));
      Cells& of_expert = cells[std::size_t(part.expert)];
      (part.share < 0 ? of_expert.against_it : of_expert.for_it)[step].push_back(n);
    }
  for (std::size_t e = 0; e < experts; ++e) {
    if (!many || e % 8 == 0) grid.name(e, "expert " + std::to_string(e));
    for (std::size_t step = 0; step <= steps; ++step) {  // also a share of about 0 shows that the expert serves
      const double opacity = 0.08 + 0.8 * double(step) / double(steps);
      grid.fill(e, cells[e].for_it[step], "heat", opacity);
      grid.fill(e, cells[e].against_it[step], "against", opacity);
    }
  }
  return grid.drawing();
}

}  // namespace route
