// SPDX-License-Identifier: MIT
#pragma once

// Labeled dots in one plot with axes: what costs how much, and what it is worth.

#include "report/svg.hpp"

#include <array>

namespace report {

struct Dot {
  std::string name;
  double x = 0, y = 0;  // a dot that is not finite is left out
};

namespace svg {

/// Puts each label beside its dot, where it covers neither another label nor a dot.
///
/// Takes the first free of some places around the dot, near ones first; a label that had to go far gets a line. When
/// none is free it takes the last, so that no name is lost.
class Labels {
 public:
  Labels(double left, double top, double right, double bottom) : frame_{left, top, right, bottom} {}

  void keep_clear_of(double x, double y) { taken_.push_back({x - 6, y - 6, x + 6, y + 6}); }

  std::string place(double x, double y, const std::string& name) {
    constexpr double character = 6.4, height = 13;  // of the page's font of 12 pixels, a little generous
    const double width = character * static_cast<double>(name.size()) + 2;
    Box box{};
    double dx = 0, dy = 0;
    for (const auto& [right, down] : places) {
      dx = right, dy = down;
      const double begin = dx > 0 ? x + dx : dx < 0 ? x + dx - width : x - width / 2;
      box = {begin, y + dy - height / 2, begin + width, y + dy + height / 2};
      if (is_free(box)) break;
    }
    taken_.push_back(box);
    std::string s = text(box.left + 1, box.bottom - 3, "start", name);
    if (std::abs(dy) > 20) s += line("grid", x, y, dx < 0 ? box.right : box.left, y + dy);
    return s;
  }

 private:
  struct Box {
    double left, top, right, bottom;
  };
  static constexpr std::array<std::array<double, 2>, 20> places{
      {{9, 0},     {-9, 0},   {0, -14},  {0, 14},  {8, -12},   {8, 12},   {-8, -12}, {-8, 12}, {16, -26},  {16, 26},
       {-16, -26}, {-16, 26}, {24, -42}, {24, 42}, {-24, -42}, {-24, 42}, {34, -60}, {34, 60}, {-34, -60}, {-34, 60}}};

  [[nodiscard]] bool is_free(const Box& box) const {
    if (box.left < frame_.left || box.right > frame_.right || box.top < frame_.top || box.bottom > frame_.bottom)
      return false;
    return std::none_of(taken_.begin(), taken_.end(), [&](const Box& other) {
      return box.left < other.right && other.left < box.right && box.top < other.bottom && other.top < box.bottom;
    });
  }

  Box frame_;
  std::vector<Box> taken_;
};

}  // namespace svg

inline std::string dot_plot(const std::vector<Dot>& all, std::string_view x_label, std::string_view y_label) {
  constexpr double left = 56, top = 26, width = 780, height = 440, margin = 60;
  std::vector<Dot> dots;
  double x_low = std::numeric_limits<double>::infinity(), x_high = -x_low, y_low = x_low, y_high = -x_low;
  for (const Dot& dot : all) {
    if (!std::isfinite(dot.x) || !std::isfinite(dot.y)) continue;
    dots.push_back(dot);
    x_low = std::min(x_low, dot.x), x_high = std::max(x_high, dot.x);
    y_low = std::min(y_low, dot.y), y_high = std::max(y_high, dot.y);
  }
  if (dots.empty()) x_low = y_low = 0, x_high = y_high = 1;
  const svg::Axis x_axis(x_low, x_high, left, width, 6), y_axis(y_low, y_high, top + height, -height, 6);
  std::string s =
      svg::open(left + width + margin, top + height + 48, std::string(y_label) + " by " + std::string(x_label));
  s += svg::frame(x_axis, y_axis, x_label, y_label);
  svg::Labels labels(left, top - 10, left + width + margin, top + height);
  for (const Dot& dot : dots) labels.keep_clear_of(x_axis.at(dot.x), y_axis.at(dot.y));
  for (const Dot& dot : dots) {
    const double x = x_axis.at(dot.x), y = y_axis.at(dot.y);
    s += labels.place(x, y, dot.name) + svg::circle("heat", x, y, 4.5);
  }
  return s + "</svg>";
}

}  // namespace report
