// SPDX-License-Identifier: MIT
#pragma once

// Several curves in one plot with axes, ticks and a legend.

#include "report/svg.hpp"

namespace report {

struct Curve {
  std::string name;
  std::vector<std::pair<double, double>> points;  // (step, loss); points that are not finite are left out
};

namespace svg {

inline std::pair<Axis, Axis> axes(const std::vector<Curve>& curves, double left, double bottom, double width,
                                  double height) {
  constexpr double infinite = std::numeric_limits<double>::infinity();
  double x_low = infinite, x_high = -infinite, y_low = infinite, y_high = -infinite;
  for (const Curve& curve : curves) {
    for (const auto& [x, y] : curve.points) {
      if (!std::isfinite(x) || !std::isfinite(y)) continue;
      x_low = std::min(x_low, x);
      x_high = std::max(x_high, x);
      y_low = std::min(y_low, y);
      y_high = std::max(y_high, y);
    }
  }
  if (x_low > x_high) return {Axis(0, 1, left, width, 6), Axis(0, 1, bottom, -height, 5)};
  return {Axis(x_low, x_high, left, width, 6), Axis(y_low, y_high, bottom, -height, 5)};
}

inline std::string polyline(const Curve& curve, const Axis& x_axis, const Axis& y_axis, std::string_view css) {
  std::string points;
  for (const auto& [x, y] : curve.points) {
    if (std::isfinite(x) && std::isfinite(y)) points += number(x_axis.at(x), 1) + "," + number(y_axis.at(y), 1) + " ";
  }
  return "<polyline class=\"curve " + std::string(css) + "\" points=\"" + points + "\"/>";
}

}  // namespace svg

inline std::string line_plot(const std::vector<Curve>& curves, std::string_view x_label, std::string_view y_label) {
  constexpr double left = 56, top = 26, width = 600, height = 300, legend = 230;
  const double total_height = std::max(top + height + 48, top + 22 * static_cast<double>(curves.size()));
  const auto [x_axis, y_axis] = svg::axes(curves, left, top + height, width, height);
  std::string s = svg::open(left + width + legend, total_height, std::string(y_label) + " by " + std::string(x_label));
  s += svg::frame(x_axis, y_axis, x_label, y_label);
  for (std::size_t i = 0; i < curves.size(); ++i) {
    const double y = top + 10 + 22 * static_cast<double>(i);
    s += svg::polyline(curves[i], x_axis, y_axis, svg::color(i));
    s += svg::line("curve " + svg::color(i), left + width + 16, y, left + width + 40, y);
    s += svg::text(left + width + 48, y + 4, "start", curves[i].name);
  }
  return s + "</svg>";
}

}  // namespace report
