// SPDX-License-Identifier: MIT
#pragma once

// The elements of drawings as inline SVG. Colors come from the style sheet of the page, as classes c0 ... c5,
// `heat` and `ink`.

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

namespace report {

/// Text for the inside of an element or an attribute.
inline std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        result += static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t' ? ' ' : c;
    }
  }
  return result;
}

/// Fixed point, independent of the locale; a dash for what is not finite.
inline std::string number(double value, int decimals) {
  if (!std::isfinite(value)) return "&#8211;";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed, decimals);
  return end.ec == std::errc{} ? std::string(buffer, end.ptr) : "&#8211;";
}

namespace svg {

inline std::string text(double x, double y, std::string_view anchor, std::string_view content) {
  return "<text class=\"ink\" x=\"" + number(x, 1) + "\" y=\"" + number(y, 1) + "\" text-anchor=\"" +
         std::string(anchor) + "\">" + escaped(content) + "</text>";
}

inline std::string rect(std::string_view css, double x, double y, double width, double height, double opacity = 1) {
  return "<rect class=\"" + std::string(css) + "\" x=\"" + number(x, 1) + "\" y=\"" + number(y, 1) + "\" width=\"" +
         number(width, 1) + "\" height=\"" + number(height, 1) + "\" fill-opacity=\"" + number(opacity, 3) + "\"/>";
}

inline std::string line(std::string_view css, double x1, double y1, double x2, double y2) {
  return "<line class=\"" + std::string(css) + "\" x1=\"" + number(x1, 1) + "\" y1=\"" + number(y1, 1) + "\" x2=\"" +
         number(x2, 1) + "\" y2=\"" + number(y2, 1) + "\"/>";
}

inline std::string circle(std::string_view css, double x, double y, double radius) {
  return "<circle class=\"" + std::string(css) + "\" cx=\"" + number(x, 1) + "\" cy=\"" + number(y, 1) + "\" r=\"" +
         number(radius, 1) + "\"/>";
}

inline std::string open(double width, double height, std::string_view label) {
  return "<svg role=\"img\" aria-label=\"" + escaped(label) + "\" width=\"" + number(width, 0) + "\" height=\"" +
         number(height, 0) + "\" viewBox=\"0 0 " + number(width, 0) + " " + number(height, 0) + "\">";
}

/// The class of the i-th of several lines: six colors, then the same ones dashed.
inline std::string color(std::size_t i) {
  return "c" + std::to_string(i % 6) + (i < 6 ? "" : " d" + std::to_string(i / 6 % 3));
}

/// The end of a long name, which tells paths apart. Bytes, so it begins at one that can begin a character.
inline std::string shortened(const std::string& name) {
  constexpr std::size_t most = 16;
  if (name.size() <= most) return name;
  std::size_t first = name.size() - (most - 2);
  while (first < name.size() && (static_cast<unsigned char>(name[first]) & 0xc0) == 0x80) ++first;
  return ".." + name.substr(first);
}

struct Axis {
  double low, high;      // of the data, widened to whole ticks
  double tick;           // their distance: 1, 2 or 5 times a power of ten
  double begin, length;  // in the drawing; a negative length goes up

  Axis(double least, double most, double first_pixel, double pixels, int ticks) : begin(first_pixel), length(pixels) {
    if (!(most > least)) most = least + 1;
    const double power = std::pow(10.0, std::floor(std::log10((most - least) / ticks)));
    const double scaled = (most - least) / ticks / power;
    tick = power * (scaled > 5 ? 10 : scaled > 2 ? 5 : scaled > 1 ? 2 : 1);
    low = std::floor(least / tick + 1e-9) * tick;
    high = std::ceil(most / tick - 1e-9) * tick;
  }

  [[nodiscard]] double at(double value) const { return begin + length * (value - low) / (high - low); }
  [[nodiscard]] int decimals() const { return std::max(0, static_cast<int>(-std::floor(std::log10(tick) + 1e-9))); }
  [[nodiscard]] int ticks() const { return static_cast<int>(std::lround((high - low) / tick)); }
};

/// Two axes with a line and a number at each tick, and what they are about.
inline std::string frame(const Axis& x, const Axis& y, std::string_view x_label, std::string_view y_label) {
  const double left = x.begin, right = x.begin + x.length, bottom = y.begin, top = y.begin + y.length;
  std::string s;
  for (int i = 0; i <= x.ticks(); ++i) {
    const double value = x.low + i * x.tick;
    s += line("grid", x.at(value), top, x.at(value), bottom + 5);
    s += text(x.at(value), bottom + 20, "middle", number(value, x.decimals()));
  }
  for (int i = 0; i <= y.ticks(); ++i) {
    const double value = y.low + i * y.tick;
    s += line(i == 0 ? "axis" : "grid", left, y.at(value), right, y.at(value));
    s += text(left - 8, y.at(value) + 4, "end", number(value, y.decimals()));
  }
  return s + text(left + x.length / 2, bottom + 40, "middle", x_label) + text(left, top - 12, "start", y_label);
}

}  // namespace svg
}  // namespace report
